#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "support/played_nodes.hpp"
#include "support/scale.hpp"

namespace switchyard::test {
namespace {

// What faults hold back for thousands of polls takes its time; each wait has its own deadline all the same.
std::chrono::seconds time_until_hang() {
  bool const faulty = std::getenv("SWITCHYARD_FAULTS") != nullptr;  // NOLINT(concurrency-mt-unsafe)
  return faulty ? 10 * hang_deadline : hang_deadline;
}

// A thread cannot be killed: a hang ends the whole test program, with a text.
void abort_on_hang(std::atomic<int> const& running) {
  auto const end = std::chrono::steady_clock::now() + time_until_hang();
  while (running.load() > 0) {
    if (std::chrono::steady_clock::now() > end) {
      std::fprintf(stderr, "HANG: %d ranks (threads) still run after the deadline\n", running.load());
      std::abort();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
}

}  // namespace

std::vector<Outcome> run_as_threads(int ranks, RankBody const& body, std::vector<int> const& nodes) {
  play_way();
  auto const store = Communicator::in_process_store();
  std::vector<Outcome> outcomes(static_cast<std::size_t>(ranks));
  std::atomic<int> running{ranks};
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      outcomes[static_cast<std::size_t>(rank)] = capture([&] {
        std::string const node =
            nodes.empty() ? played_node(ranks, rank) : std::to_string(nodes[static_cast<std::size_t>(rank)]);
        Communicator communicator = Communicator::join(store, rank, ranks, std::chrono::milliseconds{0}, node);
        body(communicator);
      });
      --running;
    });
  }
  abort_on_hang(running);
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

}  // namespace switchyard::test
