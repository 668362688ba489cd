// A reset: after a failure the engine starts afresh. Nothing here waits for the CUDA context, in which kernels of
// other ranks (threads of this process) may go on.
#include <fmt/core.h>

#include "engine/cuda/throughput/engine.hpp"

namespace switchyard::cuda {

// Waiting kernels end by their deadlines, or when the monitor publishes a failure to them, so it is stopped only
// then. With the monitor stopped, and the generation ended, nothing reports old trouble to peers that are clean
// already.
void Engine::end_work() {
  CurrentDevice const current(resources_.device);
  cudaError_t const ended = cudaStreamSynchronize(stream_.get());
  monitor_.stop();
  check_cuda(ended, "ending the work before a reset");
  check_cuda(cudaMemcpyAsync(&at_rest_, heap_->control(heap_->rank()) + peers_.control.state, sizeof at_rest_,
                             cudaMemcpyDeviceToHost, stream_.get()),
             "reading the engine's state");
  check_cuda(cudaStreamSynchronize(stream_.get()), "reading the engine's state");
  bool const failed = monitor_.end_generation().has_value();
  if (failed && at_rest_.complete < calls_) void_.push_back({at_rest_.complete + 1, calls_ + 1});
}

// A kernel raises flags that are one above the epoch that it found. It writes the new epoch only when all of its
// blocks have ended, so flags may be one above the epoch that is read here.
Counters Engine::counters() const noexcept {
  return {.epoch = at_rest_.epoch + 1, .host_epoch = host_epoch_, .calls = calls_, .gates = gates_};
}

// Tickets go on: those of the failed calls have been published, and no kernel is left that could publish them
// again.
void Engine::clean(Counters const& agreed) {
  CurrentDevice const current(resources_.device);
  host_epoch_ = agreed.host_epoch;
  calls_ = agreed.calls;
  gates_ = agreed.gates;
  DeviceState const fresh{.epoch = agreed.epoch,
                          .bad_id = ~std::uint64_t{0},
                          .failed = 0,
                          .blocks_done = 0,
                          .blocks_opened = 0,
                          .tokens_taken = 0,
                          .complete = at_rest_.complete};
  check_cuda(cudaMemcpyAsync(heap_->control(heap_->rank()) + peers_.control.state, &fresh, sizeof fresh,
                             cudaMemcpyHostToDevice, stream_.get()),
             "resetting the engine");
  check_cuda(cudaStreamSynchronize(stream_.get()), "resetting the engine");
  of_this_call_.clear();
  in_use_.clear();
  monitor_.begin_generation();
}

void Engine::give_up(Error const& error) {
  // The monitor ends the waits of graphs that are replayed all the same. Without it they end by their deadlines.
  if (!monitor_.is_running()) static_cast<void>(refusal_of([this] { monitor_.start(); }));
  monitor_.signals().fail(error);
}

// Why the handle cannot be used: kernels follow its routes unchecked, and those of a failed dispatch may never have
// been written.
std::optional<Refusal> Engine::why_void(detail::Routing const& routing) const {
  for (Numbers const& each : void_) {
    if (routing.dispatch >= each.begin && routing.dispatch < each.end)
      return Refusal{
          ErrorCode::invalid_argument,
          fmt::format("handle: expected one of a dispatch that is done, seen one (number {}) that failed "
                      "before the reset",
                      routing.dispatch)};
  }
  return std::nullopt;
}

}  // namespace switchyard::cuda
