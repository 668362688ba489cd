// Over libfabric, by TCP on loopback, counted in both ways; and with a faulty endpoint on top, whose faults then
// meet real delays.
#include "transport/libfabric/libfabric.hpp"

#include "conformance/transport/suite.hpp"
#include "transport/faulty/endpoint.hpp"

namespace switchyard::test {
namespace {

using transport::Endpoint;
namespace faulty = transport::faulty;
namespace libfabric = transport::libfabric;

std::vector<std::unique_ptr<Endpoint>> make(libfabric::Counting counting, int count) {
  libfabric::EndpointOptions options;
  options.wish.address = "127.0.0.1";
  options.wish.counting = counting;
  options.max_writes = 16;
  options.max_arrivals = 512;
  options.piece_bytes = 3000;
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (int i = 0; i < count; ++i) endpoints.push_back(libfabric::open_endpoint(options));
  return endpoints;
}

std::vector<std::unique_ptr<Endpoint>> make_remote(int count, std::uint64_t /*seed*/) {
  return make(libfabric::Counting::remote, count);
}

std::vector<std::unique_ptr<Endpoint>> make_messages(int count, std::uint64_t /*seed*/) {
  return make(libfabric::Counting::messages, count);
}

std::vector<std::unique_ptr<Endpoint>> make_faulty_libfabric(int count, std::uint64_t seed) {
  auto endpoints = make(libfabric::Counting::remote, count);
  for (int i = 0; i < count; ++i) {
    auto& endpoint = endpoints[static_cast<std::size_t>(i)];
    endpoint = std::make_unique<faulty::FaultyEndpoint>(std::move(endpoint), faulty::faults_of(seed, i));
  }
  return endpoints;
}

INSTANTIATE_TEST_SUITE_P(Libfabric, TransportSuite,
                         testing::Values(BackEnd{.name = "libfabric", .make = make_remote, .most_endpoints = 12}));
INSTANTIATE_TEST_SUITE_P(LibfabricMessages, TransportSuite,
                         testing::Values(BackEnd{
                             .name = "libfabric_messages", .make = make_messages, .most_endpoints = 12}));
INSTANTIATE_TEST_SUITE_P(
    FaultyLibfabric, TransportSuite,
    testing::Values(BackEnd{
        .name = "faulty_libfabric", .make = make_faulty_libfabric, .most_endpoints = 6, .seeds = 4}));

}  // namespace
}  // namespace switchyard::test
