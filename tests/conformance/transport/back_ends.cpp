// The back ends that need no network.
#include "conformance/transport/suite.hpp"
#include "transport/faulty/endpoint.hpp"
#include "transport/loopback/loopback.hpp"

namespace switchyard::test {
namespace {

using transport::Endpoint;
namespace faulty = transport::faulty;
namespace loopback = transport::loopback;

std::vector<std::unique_ptr<Endpoint>> make_loopback(int count, std::uint64_t /*seed*/) {
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (int i = 0; i < count; ++i) endpoints.push_back(loopback::make_endpoint({.max_writes = 16}));
  return endpoints;
}

std::vector<std::unique_ptr<Endpoint>> make_faulty(int count, std::uint64_t seed) {
  auto endpoints = make_loopback(count, seed);
  for (int i = 0; i < count; ++i) {
    auto& endpoint = endpoints[static_cast<std::size_t>(i)];
    endpoint = std::make_unique<faulty::FaultyEndpoint>(std::move(endpoint), faulty::faults_of(seed, i));
  }
  return endpoints;
}

// Faults below faults: what a faulty endpoint does with the order must hold over one that keeps none.
std::vector<std::unique_ptr<Endpoint>> make_twice_faulty(int count, std::uint64_t seed) {
  auto endpoints = make_faulty(count, seed + 1000);
  for (int i = 0; i < count; ++i) {
    auto& endpoint = endpoints[static_cast<std::size_t>(i)];
    endpoint = std::make_unique<faulty::FaultyEndpoint>(std::move(endpoint), faulty::faults_of(seed, i));
  }
  return endpoints;
}

INSTANTIATE_TEST_SUITE_P(Loopback, TransportSuite,
                         testing::Values(BackEnd{.name = "loopback", .make = make_loopback}));
INSTANTIATE_TEST_SUITE_P(Faulty, TransportSuite,
                         testing::Values(BackEnd{.name = "faulty", .make = make_faulty, .seeds = 12}));
INSTANTIATE_TEST_SUITE_P(TwiceFaulty, TransportSuite,
                         testing::Values(BackEnd{.name = "twice_faulty", .make = make_twice_faulty, .seeds = 3}));

}  // namespace
}  // namespace switchyard::test
