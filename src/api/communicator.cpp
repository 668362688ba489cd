#include "switchyard/communicator.hpp"

#include "base/check.hpp"
#include "base/config.hpp"
#include "base/deadline.hpp"
#include "bootstrap/environment.hpp"
#include "bootstrap/in_process_store.hpp"
#include "bootstrap/tcp_store/client.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "bootstrap/token_rule.hpp"
#include "job/job.hpp"

namespace switchyard {

namespace {

// Rank 0's store: the server, and the connection to it, which goes first.
struct HostedStore {
  HostedStore(TcpStoreServerOptions const& options, std::chrono::milliseconds timeout)
      : server(options), client(server.address(), options.token, timeout, {.rank = 0}) {}

  TcpStoreServer server;
  TcpStoreClient client;
};

// Throws before anybody waits for ranks that cannot be.
void check_rank(int rank, int size) {
  require(size >= 1 && size <= max_ranks, "size: expected 1 to {}, seen {}", max_ranks, size);
  require(rank >= 0 && rank < size, "rank: expected 0 to {}, seen {}", size - 1, rank);
}

// Where ranks of other nodes reach this one; empty: by the address that it reaches the store from. Rank 0 serves
// the store, and may reach it by another address than others do.
std::string address_for_others(CommunicatorOptions const& options) {
  std::string given = config_text(Setting::address);
  if (given != info_of(Setting::address).fallback) return given;
  bool const serves = options.serve && options.rank == 0 && options.size > 1;
  if (!serves || token_is_for_this_machine(options)) return {};
  return own_address_of(parse_host_port(options.address, "address"));
}

std::string node_name(std::string const& given) {
  return given.empty() ? config_text(Setting::node) : given;
}

TcpStoreServerOptions server_options(CommunicatorOptions const& options, std::uint16_t port) {
  return {.listen = where_to_listen(options),
          .port = port,
          .token = options.token,
          .listen_name = std::string(info_of(Setting::listen).variable)};
}

// `host`: see StoreServer.
std::shared_ptr<TcpStoreServer> serve_on_free_port(std::string const& token, std::string const& host) {
  CommunicatorOptions options;
  options.token = token;
  if (!host.empty()) {
    options.address = HostPort{.host = parse_host(host, "host"), .port = 1}.text();
    std::string const own = own_address_of(parse_host_port(options.address, "host"));
    require(own == host || !address_to_listen_on(own, 0, "host").is_loopback(),
            "host: expected a name or address by which other machines reach this one, seen '{}', which is {} here",
            host, own);
  }
  return std::make_shared<TcpStoreServer>(server_options(options, 0));
}

StoreCaller caller_of(CommunicatorOptions const& options) {
  return {.rank = options.rank,
          .reach = token_is_for_this_machine(options) ? Reach::this_machine : Reach::anywhere,
          .out_of_reach = text_of_missing_token(
              options, fmt::format("the store at {} is on another machine", options.address))};
}

std::shared_ptr<Store> open_store(CommunicatorOptions const& options, std::chrono::milliseconds timeout) {
  HostPort const address = parse_host_port(options.address, "address");
  // Alone, there is nobody to meet, and no reason to take a port.
  if (options.size == 1) return std::make_shared<InProcessStore>();
  if (!options.serve || options.rank != 0)
    return std::make_shared<TcpStoreClient>(address, options.token, timeout, caller_of(options));
  auto hosted = std::make_shared<HostedStore>(server_options(options, address.port), timeout);
  return {hosted, &hosted->client};
}

}  // namespace

std::chrono::milliseconds rendezvous_timeout(std::chrono::milliseconds timeout) {
  require(timeout.count() >= 0 && timeout <= longest_timeout, "timeout: expected 0 (the default) to {} ms, seen {}",
          longest_timeout.count(), timeout.count());
  return timeout.count() > 0 ? timeout : std::chrono::milliseconds{config_number(Setting::rendezvous_timeout_ms)};
}

StoreServer::StoreServer(std::string const& token, std::string const& host)
    : server_(serve_on_free_port(token, host)), address_(server_->address().text()) {}

Communicator Communicator::from_environment() {
  return connect(options_from_environment(process_environment()));
}

Communicator Communicator::connect(CommunicatorOptions const& options) {
  check_rank(options.rank, options.size);
  auto const timeout = rendezvous_timeout(options.timeout);
  return Communicator(
      std::make_shared<Job>(open_store(options, timeout), JobTerms{.rank = options.rank,
                                                                   .size = options.size,
                                                                   .node = node_name(options.node),
                                                                   .key = Key::of_token(options.token),
                                                                   .address = address_for_others(options),
                                                                   .timeout = timeout}));
}

std::shared_ptr<Store> Communicator::in_process_store() {
  return std::make_shared<InProcessStore>();
}

Communicator Communicator::join(std::shared_ptr<Store> store, int rank, int size, std::chrono::milliseconds timeout,
                                std::string const& node) {
  check_rank(rank, size);
  return Communicator(std::make_shared<Job>(
      std::move(store),
      JobTerms{.rank = rank, .size = size, .node = node_name(node), .timeout = rendezvous_timeout(timeout)}));
}

int Communicator::rank() const noexcept {
  return job_->rank();
}

int Communicator::size() const noexcept {
  return job_->size();
}

int Communicator::num_nodes() const noexcept {
  return job_->topology().num_nodes();
}

std::vector<int> Communicator::node_by_rank() const {
  std::vector<int> nodes;
  for (int rank = 0; rank < size(); ++rank) nodes.push_back(job_->topology().node_of(rank));
  return nodes;
}

void Communicator::barrier() {
  job_->barrier();
}

std::vector<std::vector<std::byte>> Communicator::all_gather(std::span<std::byte const> mine) {
  return job_->all_gather(mine);
}

}  // namespace switchyard
