#include "switchyard/communicator.hpp"

#include "base/check.hpp"
#include "base/config.hpp"
#include "base/deadline.hpp"
#include "bootstrap/environment.hpp"
#include "bootstrap/in_process_store.hpp"
#include "bootstrap/tcp_store/client.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "bootstrap/token_rule.hpp"
#include "node/job.hpp"

namespace switchyard {

namespace {

// Rank 0's store: the server, and the connection to it, which goes first.
struct HostedStore {
  HostedStore(TcpStoreServerOptions const& options, std::chrono::milliseconds timeout)
      : server(options), client(server.address(), options.token, timeout, {.rank = 0}) {}

  TcpStoreServer server;
  TcpStoreClient client;
};

// The ranks of a job share one node so far. Throws before anybody waits for ranks that cannot be.
Topology topology_of(int rank, int size) {
  require(size >= 1, "size: expected 1 or more, seen {}", size);
  require(rank >= 0 && rank < size, "rank: expected 0 to {}, seen {}", size - 1, rank);
  return Topology({size});
}

TcpStoreServerOptions server_options(CommunicatorOptions const& options, std::uint16_t port) {
  return {.listen = where_to_listen(options),
          .port = port,
          .token = options.token,
          .listen_name = std::string(info_of(Setting::listen).variable)};
}

std::shared_ptr<TcpStoreServer> serve_on_free_port(std::string const& token) {
  CommunicatorOptions options;
  options.token = token;
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

StoreServer::StoreServer(std::string const& token)
    : server_(serve_on_free_port(token)), address_(server_->address().text()) {}

Communicator Communicator::from_environment() {
  return connect(options_from_environment(process_environment()));
}

Communicator Communicator::connect(CommunicatorOptions const& options) {
  Topology const topology = topology_of(options.rank, options.size);
  auto const timeout = rendezvous_timeout(options.timeout);
  return Communicator(std::make_shared<Job>(open_store(options, timeout), topology, options.rank, timeout));
}

std::shared_ptr<Store> Communicator::in_process_store() {
  return std::make_shared<InProcessStore>();
}

Communicator Communicator::join(std::shared_ptr<Store> store, int rank, int size,
                                std::chrono::milliseconds timeout) {
  Topology const topology = topology_of(rank, size);
  return Communicator(std::make_shared<Job>(std::move(store), topology, rank, rendezvous_timeout(timeout)));
}

int Communicator::rank() const noexcept {
  return job_->rank();
}

int Communicator::size() const noexcept {
  return job_->size();
}

void Communicator::barrier() {
  job_->barrier();
}

std::vector<std::vector<std::byte>> Communicator::all_gather(std::span<std::byte const> mine) {
  return job_->all_gather(mine);
}

}  // namespace switchyard
