#include "engine/cuda/throughput/over_nodes/batches.hpp"

#include <fmt/core.h>

#include <thread>
#include <utility>

#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

Batches::Batches(int device, cudaStream_t stream, int rank) : stream_(stream), rank_(rank), memory_(most * bytes) {
  for (std::size_t i = 0; i < most; ++i) events_.push_back(std::make_unique<DeviceEvent>(device));
}

std::span<std::byte> Batches::room() const noexcept {
  return memory_.bytes().subspan(next_ % most * bytes, bytes);
}

void Batches::launched(std::vector<std::function<void()>> then) {
  events_[next_ % most]->record(stream_);
  under_way_.push_back({.number = next_, .since = Deadline::Clock::now(), .then = std::move(then)});
  ++next_;
}

bool Batches::turn(Signals& signals) {
  bool any = false;
  while (!under_way_.empty() && events_[under_way_.front().number % most]->done()) {
    check(signals);  // an event is done after an error, too
    Launch const ended = std::move(under_way_.front());
    under_way_.pop_front();
    for (auto const& step : ended.then) step();
    any = true;
  }
  if (!any && !under_way_.empty() && Deadline::Clock::now() - under_way_.front().since > signals.timeout()) {
    signals.fail(
        Timeout(fmt::format("rank {}: the GPU did not answer in time", rank_), {.rank = rank_, .phase = "gpu"}));
  }
  return any;
}

// An error of the GPU itself (for a bad address of the caller's, say) is sticky, so that waiting would be in vain.
void Batches::check(Signals& signals) const {
  cudaError_t const error = cudaStreamQuery(stream_);
  if (error == cudaSuccess || error == cudaErrorNotReady) return;
  signals.fail(SystemError(fmt::format("rank {}: the GPU reports: {}", rank_, cudaGetErrorString(error)),
                           {.rank = rank_, .phase = "gpu"}));
}

void Batches::drain(Signals& signals, std::function<void()> const& meanwhile) {
  while (!idle()) {
    meanwhile();
    if (!turn(signals)) std::this_thread::yield();
  }
}

void Batches::abandon() noexcept {
  cudaStreamSynchronize(stream_);
  under_way_.clear();
}

}  // namespace switchyard::cuda
