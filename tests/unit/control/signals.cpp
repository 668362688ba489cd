// Flags and the doorbell between two ranks. Sleeps last longer than deadlines here, so a signal that does not wake
// its peer makes a wait last until its deadline.
#include "control/signals.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "bootstrap/in_process_store.hpp"
#include "support/meeting.hpp"

namespace switchyard::test {
namespace {

constexpr std::size_t control_bytes = 4096;

class PlainSegment final : public Segment {
 public:
  PlainSegment() : Segment(2 * control_bytes, 2 * control_bytes), memory_(2 * control_bytes / sizeof(Line)) {
    data_ = reinterpret_cast<std::byte*>(memory_.data());
  }

 private:
  struct alignas(cache_line) Line {
    std::byte bytes[cache_line];
  };
  std::vector<Line> memory_;
};

// The flag that a rank waits for, behind its header.
std::atomic<std::uint64_t>& flag_of(SymmetricHeap const& heap, int rank) {
  return *reinterpret_cast<std::atomic<std::uint64_t>*>(heap.control(rank) +
                                                        align_up(sizeof(ControlHeader), cache_line));
}

void play(std::chrono::microseconds spin, bool yields) {
  constexpr std::uint64_t rounds = 20000;
  auto const store = std::make_shared<InProcessStore>();
  std::vector<std::shared_ptr<Segment>> const segments{std::make_shared<PlainSegment>(),
                                                       std::make_shared<PlainSegment>()};
  run_threads(2, [&](int rank) {
    auto const heap = std::make_shared<SymmetricHeap>(segments, rank, control_bytes);
    Signals signals(heap, std::make_shared<Node>(store, rank, 2, plenty),
                    {.timeout = plenty, .spin = spin, .yields = yields, .nap = 2 * plenty});
    for (std::uint64_t round = 1; round <= rounds; ++round) {
      if (rank == 0) signals.publish(1, flag_of(*heap, 1), round);
      Deadline const deadline = signals.deadline();
      ASSERT_NO_THROW(signals.wait(flag_of(*heap, rank), {1 - rank, round, "a game"}, deadline));
      ASSERT_FALSE(deadline.expired()) << "nobody woke rank " << rank << " in round " << round;
      if (rank == 1) signals.publish(0, flag_of(*heap, 0), round);
    }
  });
}

TEST(Signals, WakeWhoSleepsAtOnce) {
  play(std::chrono::microseconds{0}, false);
}

TEST(Signals, WakeWhoYieldsBeforeItSleeps) {
  play(std::chrono::microseconds{3}, true);
}

}  // namespace
}  // namespace switchyard::test
