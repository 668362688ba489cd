#include "support/low_latency_engine.hpp"

#include <cstring>

#include "support/span.hpp"

namespace switchyard::test {
namespace {

// Copies, of the exact size: what an engine reads beyond them AddressSanitizer sees.
class HostMemory : public RankMemory {
 public:
  Tensor place(ConstTensorView const& host) override {
    if (!host.given()) return {};
    std::size_t const bytes = span_bytes(host);
    std::shared_ptr<std::byte[]> const memory(new std::byte[bytes > 0 ? bytes : 1]);
    if (bytes > 0) std::memcpy(memory.get(), host.data, bytes);
    TensorView view;
    view.data = memory.get();
    view.dtype = host.dtype;
    view.ndim = host.ndim;
    view.shape = host.shape;
    view.strides = host.strides;
    return {view, memory};
  }
  void write(TensorView const& to, void const* from) override {
    if (to.numel() > 0) std::memcpy(to.data, from, span_bytes(to));
  }
  Tensor fetch(Tensor const& tensor) override { return tensor; }
};

class CpuEngine : public SlotEngine {
 public:
  [[nodiscard]] EngineKind kind() const override { return EngineKind::cpu; }
  [[nodiscard]] std::unique_ptr<RankMemory> memory(int /*rank*/) const override {
    return std::make_unique<HostMemory>();
  }
};

SlotEngine const*& chosen() {
  static CpuEngine const cpu;
  static SlotEngine const* engine = &cpu;
  return engine;
}

}  // namespace

SlotEngine const& slot_engine() {
  return *chosen();
}

bool use_slot_engine(SlotEngine const& engine) {
  chosen() = &engine;
  return true;
}

LowLatencyOptions SlotRank::options() const {
  LowLatencyOptions options = slot_options(c);
  options.engine = slot_engine().kind();
  return options;
}

bool run_slots(SlotCase const& c, SlotBody const& body, Ending ending) {
  return run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    std::unique_ptr<RankMemory> const memory = slot_engine().memory(communicator.rank());
    communicator.barrier();  // taking memory of a GPU waits for its kernels
    SlotRank rank{c, communicator, *memory};
    body(rank);
    if (ending == Ending::together) communicator.barrier();
  });
}

bool run_slot_buffers(SlotCase const& c, SlotBufferBody const& body, Ending ending) {
  return run_slots(
      c,
      [&](SlotRank& rank) {
        LowLatencyBuffer buffer(rank.communicator, rank.options());
        body(rank, buffer);
        if (ending == Ending::together) rank.communicator.barrier();
      },
      ending);
}

}  // namespace switchyard::test
