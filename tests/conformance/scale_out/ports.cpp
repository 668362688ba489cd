#include "conformance/scale_out/ports.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "base/deadline.hpp"
#include "bootstrap/in_process_store.hpp"
#include "scale_out/rest.hpp"
#include "support/outcome.hpp"
#include "transport/libfabric/libfabric.hpp"

namespace switchyard::test {

void PrintTo(Way const& way, std::ostream* out) {
  *out << way.transport << ", faults " << way.faults;
}

std::string choose(Way const& way) {
  ::setenv("SWITCHYARD_TRANSPORT", way.transport.c_str(), 1);
  ::setenv("SWITCHYARD_FAULTS", std::to_string(way.faults).c_str(), 1);
  return way.transport == "libfabric" ? transport::libfabric::report({}).why_none : "";
}

void run_jobs(NodeNames const& nodes, JobBody const& body, std::chrono::milliseconds timeout) {
  auto const store = std::make_shared<InProcessStore>();
  std::vector<Outcome> outcomes(nodes.size());
  std::atomic<std::size_t> ended{0};
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < nodes.size(); ++rank) {
    threads.emplace_back([&, rank] {
      outcomes[rank] = capture([&] {
        body(std::make_shared<Job>(store, JobTerms{.rank = static_cast<int>(rank),
                                                   .size = static_cast<int>(nodes.size()),
                                                   .node = nodes[rank],
                                                   .timeout = timeout}));
      });
      ++ended;
    });
  }
  Deadline const deadline(hang_deadline);
  while (ended < nodes.size() && !deadline.expired()) std::this_thread::sleep_for(std::chrono::milliseconds{1});
  if (ended < nodes.size()) {
    for (Outcome const& outcome : outcomes)
      if (!outcome.ok) std::fprintf(stderr, "%s\n", outcome.what.c_str());
    std::fprintf(stderr, "HANG: ranks (threads) still run after the deadline\n");
    std::abort();
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t rank = 0; rank < nodes.size(); ++rank)
    EXPECT_TRUE(outcomes[rank].ok) << "rank " << rank << ": " << outcomes[rank].what;
}

void run_ports(NodeNames const& nodes, scale_out::PortSizes const& sizes, PortBody const& body) {
  run_jobs(nodes, [&](std::shared_ptr<Job> const& job) {
    scale_out::Port port(job, sizes);
    body(port, *job);
  });
}

void poll_until(scale_out::Port& port, std::function<bool()> const& holds, std::string const& what) {
  Deadline const deadline(hang_deadline / 3);
  scale_out::Rest rest;
  while (!holds()) {
    check(!deadline.expired(), "expected in time: ", what);
    if (!port.poll()) rest.turn();
  }
}

void exchange_letters(scale_out::Port& port, std::uint64_t epoch) {
  port.begin(epoch);
  auto const count = static_cast<int>(port.neighbours().size());
  for (int neighbour = 0; neighbour < count; ++neighbour) {
    poll_until(
        port, [&] { return port.letter_to(neighbour).has_value(); }, "room for a letter");
    port.send_letter(neighbour, 0);
  }
  for (int neighbour = 0; neighbour < count; ++neighbour)
    poll_until(
        port, [&] { return port.letter_from(neighbour).has_value(); }, "a letter");
  poll_until(
      port, [&] { return port.all_sent(); }, "the end of the call");
}

}  // namespace switchyard::test
