// The engine that a test of the low-latency mode runs on: the CPU engine, unless the program chose another. The
// same tests serve both.
#pragma once

#include <functional>
#include <memory>

#include "support/low_latency_case.hpp"
#include "support/ranks.hpp"

namespace switchyard::test {

// Memory of one rank that is not the library's.
class RankMemory {
 public:
  RankMemory() = default;
  virtual ~RankMemory() = default;
  RankMemory(RankMemory const&) = delete;
  RankMemory& operator=(RankMemory const&) = delete;

  // A tensor with these contents (of host memory) and strides, where the engine takes it.
  virtual Tensor place(ConstTensorView const& host) = 0;
  // The whole span of `to`, from host memory of the same strides.
  virtual void write(TensorView const& to, void const* from) = 0;
  // The tensor in host memory, with the same strides; of nothing given, nothing.
  virtual Tensor fetch(Tensor const& tensor) = 0;
  // That calls are to run on.
  [[nodiscard]] virtual std::uintptr_t stream() const { return 0; }
};

class SlotEngine {
 public:
  SlotEngine() = default;
  virtual ~SlotEngine() = default;
  SlotEngine(SlotEngine const&) = delete;
  SlotEngine& operator=(SlotEngine const&) = delete;

  [[nodiscard]] virtual EngineKind kind() const = 0;
  // Why tests are skipped here; empty: they are not.
  [[nodiscard]] virtual std::string unusable() const { return {}; }
  [[nodiscard]] virtual std::unique_ptr<RankMemory> memory(int rank) const = 0;
};

// The engine of this program.
SlotEngine const& slot_engine();
// Before main(); returns true, to initialise something with.
bool use_slot_engine(SlotEngine const& engine);

inline bool on_gpu() {
  return slot_engine().kind() == EngineKind::cuda;
}

// One rank of a case.
struct SlotRank {
  SlotCase const& c;
  Communicator& communicator;
  RankMemory& memory;

  [[nodiscard]] int rank() const { return communicator.rank(); }
  [[nodiscard]] LowLatencyOptions options() const;
};

using SlotBody = std::function<void(SlotRank&)>;
using SlotBufferBody = std::function<void(SlotRank&, LowLatencyBuffer&)>;

enum class Ending : std::uint8_t {
  together,  // no rank frees its memory while another may be at work
  alone,     // ranks that fail, or leave
};

// Runs `body` as every rank; false, and a failed test, unless it succeeds on all.
bool run_slots(SlotCase const& c, SlotBody const& body, Ending ending = Ending::together);
// The same, with a buffer of the case's options.
bool run_slot_buffers(SlotCase const& c, SlotBufferBody const& body, Ending ending = Ending::together);

class LowLatencyTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string const why = slot_engine().unusable(); !why.empty()) GTEST_SKIP() << why;
  }
};

}  // namespace switchyard::test
