// A heap that grows and shrinks, and blocks that streams still read when they are released. Memory of the host
// stands for that of a GPU, and a list of points for its streams.
#include "memory/symmetric_heap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "base/check.hpp"
#include "memory/shared_segment.hpp"
#include "memory/shortage.hpp"
#include "support/check.hpp"
#include "support/random.hpp"

namespace switchyard::test {
namespace {

constexpr std::size_t unit = BlockAllocator::granule;
constexpr std::size_t control = unit;

// Has addresses, and memory behind none of them.
class BareSegment final : public Segment {
 public:
  BareSegment(std::size_t bytes, std::size_t capacity) : Segment(bytes, capacity) {
    data_ = reinterpret_cast<std::byte*>(std::size_t{1} << 40);  // NOLINT(performance-no-int-to-ptr): never read
  }
  void set(std::size_t bytes) { set_bytes(bytes); }
};

// What all ranks' memory together still has.
struct Machine {
  std::size_t free = 0;
  std::size_t spare = 0;
  int asked = 0;
  bool peer_is_silent = false;
};

class Growth final : public HeapGrowth {
 public:
  Growth(std::shared_ptr<BareSegment> segment, Machine& machine)
      : segment_(std::move(segment)), machine_(machine) {}

  void grow(std::size_t bytes) override {
    ++machine_.asked;
    if (machine_.peer_is_silent) throw Timeout("a peer does not answer");
    std::size_t const whole = (bytes + 16 * unit - 1) / (16 * unit) * (16 * unit);
    if (whole > machine_.free) throw OutOfMemory("none left");
    machine_.free -= whole;
    segment_->set(segment_->bytes() + whole);
  }
  void shrink(std::size_t bytes) override {
    machine_.free += segment_->bytes() - bytes;
    segment_->set(bytes);
  }
  [[nodiscard]] std::size_t spare() const override { return machine_.spare; }

 private:
  std::shared_ptr<BareSegment> segment_;
  Machine& machine_;
};

// Streams have points that pass when the test says so.
class Streams {
 public:
  class Fence final : public StreamFence {
   public:
    Fence(Streams& streams, std::vector<std::uintptr_t> const& names) : streams_(streams) {
      for (std::uintptr_t const name : names) until_[name] = streams.queued_[name];
    }
    [[nodiscard]] bool passed() const noexcept override {
      return std::ranges::all_of(until_,
                                 [this](auto const& each) { return streams_.done_.at(each.first) >= each.second; });
    }
    void make_stream_wait(std::uintptr_t) const override {}
    void wait() const noexcept override {
      for (auto const& [name, queued] : until_) streams_.done_[name] = std::max(streams_.done_[name], queued);
    }

   private:
    Streams& streams_;
    std::map<std::uintptr_t, int> until_;
  };

  void queue(std::uintptr_t name) {
    ++queued_[name];
    done_.try_emplace(name, 0);
  }
  void finish(std::uintptr_t name) { done_[name] = queued_[name]; }
  [[nodiscard]] std::unique_ptr<StreamFence> fence(std::span<std::uintptr_t const> names) {
    return std::make_unique<Fence>(*this, std::vector<std::uintptr_t>(names.begin(), names.end()));
  }

 private:
  std::map<std::uintptr_t, int> queued_;
  std::map<std::uintptr_t, int> done_;
};

struct Growing {
  Machine machine;
  Streams streams;
  std::shared_ptr<SymmetricHeap> heap;

  explicit Growing(std::size_t granules, std::size_t free_granules, std::size_t capacity_granules = 1 << 20) {
    machine = {.free = free_granules * unit, .spare = 0};
    auto const segment =
        std::make_shared<BareSegment>(control + granules * unit, control + capacity_granules * unit);
    heap = std::make_shared<SymmetricHeap>(std::vector<std::shared_ptr<Segment>>{segment}, 0, control,
                                           HeapTools{.growth = std::make_unique<Growth>(segment, machine),
                                                     .fence = [this](auto names) { return streams.fence(names); }});
  }
};

TEST(GrowingHeap, GrowsByWhatALargeBlockNeedsBesidesWhatIsFreeAtItsEnd) {
  Growing g(16, 64);
  auto const first = g.heap->allocate_growing(12 * unit);
  check(first.has_value(), "a block that fits");
  check_equal(g.machine.asked, 0, "growths");
  auto const second = g.heap->allocate_growing(20 * unit);
  check(second.has_value(), "a block that needs 16 more granules");
  check_equal(g.machine.asked, 1, "growths");
  check_equal(g.heap->heap_bytes(0), 32 * unit, "bytes of the heap");
  check_equal(second->offset, 12 * unit, "where the block begins: it spans what was there and what is new");
  check(!g.heap->allocate(unit).has_value(), "nothing is free, and allocate() lets nothing grow");
}

TEST(GrowingHeap, GrowsAheadOnlyFromSpareMemory) {
  Growing g(64, 1000);
  check(!g.heap->allocate_from_spare(65 * unit).has_value(), "none can be spared");
  g.machine.spare = 100 * unit;
  auto const spared = g.heap->allocate_from_spare(65 * unit);
  check(spared.has_value(), "65 of 100 granules can be spared");
  check_equal(g.heap->heap_bytes(0), 80 * unit, "bytes of the heap");
  // A fourth of the heap is 20 granules, more than the one that is needed.
  auto const more = g.heap->allocate_growing(16 * unit);
  check(more.has_value(), "a block");
  check_equal(g.heap->heap_bytes(0), 112 * unit, "bytes of the heap");
}

TEST(GrowingHeap, StopsAtItsCapacityAndWhereMemoryEnds) {
  Growing narrow(16, 1000, 20);
  check(!narrow.heap->allocate_growing(21 * unit).has_value(), "more than there are addresses");
  Growing poor(16, 16);
  auto const all = poor.heap->allocate_growing(20 * unit);
  check(all.has_value(), "all memory that there is");
  check(!poor.heap->allocate_growing(20 * unit).has_value(), "more than there is");
  for (std::size_t const huge : {~std::size_t{0}, ~std::size_t{0} - unit, std::size_t{1} << 63})
    check(!poor.heap->allocate_growing(huge).has_value(), "bytes: ", huge);
}

TEST(GrowingHeap, AShortageIsRelievedOnce) {
  Growing g(16, 0);
  int calls = 0;
  set_shortage_relief([&] {
    ++calls;
    g.machine.free += 16 * unit;
  });
  auto const block = g.heap->allocate_growing(20 * unit);
  check(block.has_value(), "what was freed elsewhere");
  check_equal(calls, 1, "calls for relief");
  set_shortage_relief({});
  check(!g.heap->allocate_growing(20 * unit).has_value(), "there is nobody to free more");
}

// Each try may take as long as the timeout.
TEST(GrowingHeap, APeerThatDoesNotAnswerIsAskedOnce) {
  Growing g(64, 1000);
  g.machine.spare = 500 * unit;
  g.machine.peer_is_silent = true;
  int calls = 0;
  set_shortage_relief([&] { ++calls; });
  check(!g.heap->allocate_growing(65 * unit).has_value(), "a peer has not mapped the memory");
  set_shortage_relief({});
  check_equal(g.machine.asked, 1, "growths");
  check_equal(calls, 0, "calls for relief, which would not help");
}

// What the caller's stream has not read yet must stay mapped.
TEST(GrowingHeap, GivesNothingBackThatTheCallerStillReads) {
  Growing g(16, 16);
  static_cast<void>(g.heap->note_caller(100));
  auto block = g.heap->allocate_growing(20 * unit);
  g.streams.queue(100);
  note_stream_use(block->data + 18 * unit, 100);
  block.reset();
  check_equal(g.heap->give_back(), std::size_t{0}, "bytes given back");
  check(g.heap->allocate(30 * unit).has_value(), "all of the heap is there");
  g.streams.finish(100);
  check_equal(g.heap->give_back(), 16 * unit, "bytes given back");
}

TEST(GrowingHeap, GivesBackFromItsEndWhatNothingLiesIn) {
  Growing g(16, 160);
  auto first = g.heap->allocate_growing(16 * unit);
  auto second = g.heap->allocate_growing(16 * unit);
  auto third = g.heap->allocate_growing(32 * unit);
  check_equal(g.heap->heap_bytes(0), 64 * unit, "bytes of the heap");
  check_equal(g.heap->give_back(), std::size_t{0}, "all is in use");
  second.reset();
  check_equal(g.heap->give_back(), std::size_t{0}, "what is free lies before what is in use");
  third.reset();
  check_equal(g.heap->give_back(), 48 * unit, "both growths");
  check_equal(g.machine.free, 160 * unit, "free memory");
  check(g.heap->allocate_growing(30 * unit).has_value(), "it grows again");
  first.reset();
}

// Random sizes, taken and freed: blocks lie in the heap, apart, and memory is only ever what the heap has.
TEST(GrowingHeap, BlocksNeverOverlap) {
  constexpr std::uint64_t seed = 20261129;
  Random random(seed);
  Growing g(8, 4000);
  std::map<std::size_t, std::pair<std::size_t, SymmetricHeap::Block>> held;
  for (int step = 0; step < 3000; ++step) {
    if (random.chance(45) && !held.empty()) {
      held.erase(std::next(held.begin(), random.below(static_cast<std::int64_t>(held.size()))));
    } else if (random.chance(5)) {
      static_cast<void>(g.heap->give_back());
    } else {
      auto const bytes = static_cast<std::size_t>(random.between(1, 40 * static_cast<int>(unit)));
      auto block = g.heap->allocate_growing(bytes);
      if (!block) continue;
      std::size_t const end = block->offset + bytes;
      check(end <= g.heap->heap_bytes(0), "seed ", seed, " step ", step, ": a block beyond the end");
      auto const after = held.lower_bound(block->offset);
      check(after == held.end() || end <= after->first, "seed ", seed, " step ", step, ": it overlaps the next");
      check(after == held.begin() || std::prev(after)->first + std::prev(after)->second.first <= block->offset,
            "seed ", seed, " step ", step, ": it overlaps the one before");
      held.emplace(block->offset, std::pair(bytes, std::move(*block)));
    }
    check_equal(g.machine.free + g.heap->heap_bytes(0), 4008 * unit, "bytes free and of the heap");
  }
}

constexpr std::uintptr_t usual = 100;
constexpr std::uintptr_t other_stream = 200;

TEST(ReadBlocks, AreNotUsedAgainBeforeTheirReadersAreDone) {
  Growing g(16, 0);
  check(!g.heap->note_caller(usual).has_value(), "the first caller");
  auto block = g.heap->allocate(16 * unit);
  g.streams.queue(other_stream);
  note_stream_use(block->data + 5 * unit, other_stream);  // a tensor in the midst of the block
  block.reset();
  check(!g.heap->allocate(unit).has_value(), "a block that is still read");
  g.streams.finish(other_stream);
  check(g.heap->allocate(unit).has_value(), "a block that has been read");
}

TEST(ReadBlocks, OfTheOneCallerAreFreeAtOnce) {
  Growing g(16, 0);
  static_cast<void>(g.heap->note_caller(usual));
  auto block = g.heap->allocate(16 * unit);
  g.streams.queue(usual);
  note_stream_use(block->data, usual);
  block.reset();
  check(g.heap->allocate(unit).has_value(), "the next call comes behind what its caller has queued");
}

TEST(ReadBlocks, OfTheOneCallerMayBeWrittenByItAlone) {
  Growing g(16, 0);
  check(!g.heap->is_only_caller(usual), "before the first call");
  static_cast<void>(g.heap->note_caller(usual));
  check(g.heap->is_only_caller(usual), "the one caller");
  check(!g.heap->is_only_caller(other_stream), "another stream");
  static_cast<void>(g.heap->note_caller(other_stream));
  for (std::uintptr_t const each : {usual, other_stream})
    check(!g.heap->is_only_caller(each), "one of two callers");
}

TEST(ReadBlocks, OfAnEarlierCallerHoldUpTheFirstCallOfAnotherAndNoOther) {
  Growing g(32, 0);
  static_cast<void>(g.heap->note_caller(usual));
  auto block = g.heap->allocate(16 * unit);
  note_stream_use(block->data, usual);
  check_equal(g.heap->note_caller(other_stream).value_or(0), usual, "whom the call must come behind");
  check(!g.heap->note_caller(usual).has_value(), "a call of the earlier one");
  check(!g.heap->note_caller(other_stream).has_value(), "a second call on it");
  // From now on the reads of each count.
  g.streams.queue(usual);
  note_stream_use(block->data, usual);
  block.reset();
  check(!g.heap->allocate(20 * unit).has_value(), "a block that an earlier caller still reads");
  g.streams.finish(usual);
  check(g.heap->allocate(20 * unit).has_value(), "a block that has been read");
}

TEST(ReadBlocks, LetTheHeapGrowMeanwhile) {
  Growing g(16, 16);
  static_cast<void>(g.heap->note_caller(usual));
  auto block = g.heap->allocate(16 * unit);
  g.streams.queue(other_stream);
  note_stream_use(block->data, other_stream);
  block.reset();
  check(g.heap->allocate_growing(16 * unit).has_value(), "memory that nobody reads");
  check_equal(g.machine.asked, 1, "growths");
}

TEST(ReadBlocks, TheHeapGoesWhenTheyHaveBeenRead) {
  Growing g(16, 0);
  static_cast<void>(g.heap->note_caller(usual));
  auto block = g.heap->allocate(unit);
  g.streams.queue(other_stream);
  note_stream_use(block->data, other_stream);
  auto const fence = g.streams.fence(std::vector<std::uintptr_t>{other_stream});
  g.heap.reset();
  check(!fence->passed(), "the block is held");
  block.reset();
  check(fence->passed(), "the last owner waits for the readers");
}

TEST(ReadBlocks, OfNobodyAreIgnored) {
  Growing g(16, 0);
  int mine = 0;
  note_stream_use(&mine, other_stream);
  note_stream_use(nullptr, other_stream);
}

// The CPU engine: pages that were written to go back to the machine, and are zero when they come again.
TEST(HostHeap, GivesBackFreePages) {
  std::vector<std::shared_ptr<Segment>> const segments{SharedSegment::create(control + 64 * unit)};
  auto const heap = std::make_shared<SymmetricHeap>(segments, 0, control);
  auto const kept = heap->allocate(4 * unit);
  auto freed = heap->allocate(32 * unit);
  std::fill_n(kept->data, 4 * unit, std::byte{7});
  std::fill_n(freed->data, 32 * unit, std::byte{9});
  std::byte const* const at = freed->data;
  freed.reset();
  static_cast<void>(heap->give_back());
  check(std::all_of(kept->data, kept->data + 4 * unit, [](std::byte each) { return each == std::byte{7}; }),
        "bytes that are in use");
  check(std::all_of(at, at + 32 * unit, [](std::byte each) { return each == std::byte{0}; }),
        "pages that nobody uses");
}

}  // namespace
}  // namespace switchyard::test
