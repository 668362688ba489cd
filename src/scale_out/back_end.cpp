#include "scale_out/back_end.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "base/check.hpp"
#include "base/config.hpp"
#include "base/random.hpp"
#include "transport/faulty/endpoint.hpp"
#include "transport/libfabric/libfabric.hpp"
#include "transport/loopback/loopback.hpp"

namespace switchyard::scale_out {

namespace {

namespace faulty = transport::faulty;
namespace libfabric = transport::libfabric;
namespace loopback = transport::loopback;

// Threads of one process have the same. Processes of two containers may both have process id 1, and a child of
// fork() has the bytes of its parent, so it takes both.
struct ProcessMark {
  std::uint64_t pid = 0;
  std::array<std::byte, 16> bytes{};
  bool operator==(ProcessMark const&) const = default;
};

ProcessMark this_process() {
  static std::array<std::byte, 16> const bytes = [] {
    std::array<std::byte, 16> random{};
    fill_random(random);
    return random;
  }();
  return {static_cast<std::uint64_t>(::getpid()), bytes};
}

struct Said {
  ProcessMark process;
  std::string transport;
  std::uint64_t faults = 0;
};

Said read_said(MessageReader& message) {
  Said said;
  said.process = message.get<ProcessMark>();
  said.transport = message.get_text();
  said.faults = message.get<std::uint64_t>();
  return said;
}

// NICs of a fabric have addresses of their own, and all of them are used, whichever address control connections
// have. Where data goes over TCP, those connections have shown which address reaches the other nodes.
libfabric::Wish wish_at(std::string const& address) {
  libfabric::Wish wish = libfabric::wish_of_environment();
  if (!wish.nics.empty()) return wish;
  auto const nics = libfabric::report(wish).nics;
  auto const chosen = std::ranges::find_if(nics, &libfabric::Nic::chosen);
  if (chosen == nics.end() || !chosen->of_a_fabric) wish.address = address;
  return wish;
}

std::size_t num_nics(libfabric::Wish const& wish) {
  auto const nics = libfabric::report(wish).nics;
  return static_cast<std::size_t>(std::ranges::count_if(nics, &libfabric::Nic::chosen));
}

// Rail peers have the same local rank, and begin with the same NIC.
std::vector<std::unique_ptr<transport::Endpoint>> open_fabric(EndpointTerms const& terms) {
  libfabric::EndpointOptions options;
  options.wish = wish_at(terms.address);
  options.max_writes = terms.max_writes;
  options.max_arrivals = terms.max_arrivals;
  std::size_t const count = std::max<std::size_t>(1, num_nics(options.wish));
  std::vector<std::unique_ptr<transport::Endpoint>> endpoints;
  for (std::size_t i = 0; i < count; ++i) {
    options.nic = static_cast<std::size_t>(terms.local_rank) + i;
    endpoints.push_back(libfabric::open_endpoint(options));
  }
  return endpoints;
}

std::vector<std::unique_ptr<transport::Endpoint>> open_loopback(EndpointTerms const& terms) {
  std::vector<std::unique_ptr<transport::Endpoint>> endpoints;
  endpoints.push_back(loopback::make_endpoint({.max_writes = terms.max_writes,
                                               .max_write_bytes = terms.memory_bytes,
                                               .region_bytes_limit = terms.memory_bytes}));
  return endpoints;
}

// Endpoints of one NIC know one another, so a rank's number serves in all of them.
void make_faulty(std::vector<std::unique_ptr<transport::Endpoint>>& endpoints, std::uint64_t seed,
                 EndpointTerms const& terms) {
  faulty::Faults faults = faulty::faults_of(seed, terms.rank);
  if (faults.max_writes > 0) faults.max_writes += terms.lasting_writes;
  for (auto& endpoint : endpoints) endpoint = std::make_unique<faulty::FaultyEndpoint>(std::move(endpoint), faults);
}

}  // namespace

void put_back_end(MessageWriter& message) {
  message.put(this_process());
  message.put_text(config_text(Setting::transport));
  message.put(static_cast<std::uint64_t>(config_number(Setting::faults)));
}

BackEnd agreed_back_end(std::vector<MessageReader>& ranks) {
  Said const first = read_said(ranks.at(0));
  bool one_process = true;
  for (std::size_t rank = 1; rank < ranks.size(); ++rank) {
    Said const said = read_said(ranks[rank]);
    require(said.transport == first.transport,
            "SWITCHYARD_TRANSPORT: expected '{}' on all ranks, as on rank 0, seen '{}' on rank {}", first.transport,
            said.transport, rank);
    require(said.faults == first.faults,
            "SWITCHYARD_FAULTS: expected {} on all ranks, as on rank 0, seen {} on rank {}", first.faults,
            said.faults, rank);
    one_process = one_process && said.process == first.process;
  }
  require(one_process || first.transport != "loopback",
          "SWITCHYARD_TRANSPORT: expected libfabric or auto where ranks are processes, seen loopback");
  require(first.faults == 0 || ranks.size() <= faulty::max_endpoints,
          "SWITCHYARD_FAULTS: expected at most {} ranks, seen {}", faulty::max_endpoints, ranks.size());
  return {.loopback = one_process && first.transport != "libfabric", .faults = first.faults};
}

std::vector<std::unique_ptr<transport::Endpoint>> open_endpoints(BackEnd const& back_end,
                                                                 EndpointTerms const& terms) {
  auto endpoints = back_end.loopback ? open_loopback(terms) : open_fabric(terms);
  if (back_end.faults != 0) make_faulty(endpoints, back_end.faults, terms);
  return endpoints;
}

}  // namespace switchyard::scale_out
