// Where the time of a call went.
#include <array>
#include <span>

#include "engine/cuda/throughput/engine.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

namespace {

// A phase by the stamp that ends it.
struct Named {
  Stamp end;
  char const* name;
};

constexpr std::array of_dispatch{Named{Stamp::started, "launch"}, Named{Stamp::counted, "count"},
                                 Named{Stamp::agreed, "agree"},   Named{Stamp::answered, "answer"},
                                 Named{Stamp::moved, "move"},     Named{Stamp::closed, "close"}};
constexpr std::array of_combine{Named{Stamp::started, "launch"}, Named{Stamp::counted, "stage"},
                                Named{Stamp::agreed, "agree"}, Named{Stamp::moved, "sum"},
                                Named{Stamp::closed, "close"}};
constexpr std::array of_layout{Named{Stamp::started, "launch"}, Named{Stamp::counted, "count"}};

}  // namespace

std::vector<PhaseTime> Engine::phases() const {
  std::array<std::uint64_t, static_cast<std::size_t>(Stamp::count)> stamps{};
  CurrentDevice const current(options_.device);
  check_cuda(cudaMemcpy(stamps.data(), heap_->control(heap_->rank()) + peers_.control.stamps, sizeof stamps,
                        cudaMemcpyDeviceToHost),
             "reading the phases of a call");
  std::span<Named const> const names = latest_ == Call::dispatch  ? std::span<Named const>(of_dispatch)
                                       : latest_ == Call::combine ? std::span<Named const>(of_combine)
                                                                  : std::span<Named const>(of_layout);
  std::uint64_t before = stamps[static_cast<std::size_t>(Stamp::released)];
  std::vector<PhaseTime> times;
  for (Named const& phase : names) {
    std::uint64_t const end = stamps[static_cast<std::size_t>(phase.end)];
    if (end < before) continue;  // of an earlier call
    if (before > 0) times.push_back({phase.name, static_cast<double>(end - before) / 1e3});
    before = end;
  }
  return times;
}

}  // namespace switchyard::cuda
