// A reset: after a failure the engine starts afresh. Nothing here waits for the context: kernels of ranks that are
// threads of this process may run on in it.
#include <fmt/core.h>

#include "engine/cuda/throughput/engine.hpp"

namespace switchyard::cuda {

// Waiting kernels end by their deadlines, or when the watchdog tells them of a failure; it goes only then. Without
// it nobody reports old trouble to peers that are clean already.
void Engine::end_work() {
  CurrentDevice const current(options_.device);
  cudaError_t const ended = cudaStreamSynchronize(stream_.get());
  watchdog_.reset();
  check_cuda(ended, "ending the work before a reset");
  check_cuda(cudaMemcpyAsync(&at_rest_, heap_->control(heap_->rank()) + peers_.control.state, sizeof at_rest_,
                             cudaMemcpyDeviceToHost, stream_.get()),
             "reading the engine's state");
  check_cuda(cudaStreamSynchronize(stream_.get()), "reading the engine's state");
  end_era();
}

// What kernels reported is told to the peers now or never: no thread that waits for an old event may do so later.
void Engine::end_era() {
  std::optional<Error> failure;
  try {
    check_usable();
  } catch (Error const& error) {
    failure = error;
  }
  std::lock_guard const lock(trouble_mutex_);
  era_->failure = failure;
  mailbox_.clear_trouble();
  if (failure && at_rest_.complete < calls_) void_.push_back({at_rest_.complete + 1, calls_ + 1});
}

// A kernel raises flags one above what it found, and leaves that behind only when all of its blocks came to the
// end.
Counters Engine::counters() const noexcept {
  return {.epoch = at_rest_.epoch + 1, .host_epoch = host_epoch_, .calls = calls_, .gates = gates_};
}

// Tickets go on: those of the failed calls have been told, and no kernel is left that could tell them again.
void Engine::clean(Counters const& agreed) {
  CurrentDevice const current(options_.device);
  host_epoch_ = agreed.host_epoch;
  calls_ = agreed.calls;
  gates_ = agreed.gates;
  DeviceState const fresh{.epoch = agreed.epoch,
                          .bad_id = ~std::uint64_t{0},
                          .failed = 0,
                          .blocks_done = 0,
                          .blocks_opened = 0,
                          .complete = at_rest_.complete};
  check_cuda(cudaMemcpyAsync(heap_->control(heap_->rank()) + peers_.control.state, &fresh, sizeof fresh,
                             cudaMemcpyHostToDevice, stream_.get()),
             "resetting the engine");
  check_cuda(cudaStreamSynchronize(stream_.get()), "resetting the engine");
  of_this_call_.clear();
  in_use_.clear();
  mailbox_.clear_aborted();
  signals_.reset();
  era_ = std::make_shared<Era>();
  watch();
}

void Engine::give_up(Error const& error) {
  // It ends the waits of graphs that are replayed all the same. Without it they end by their deadlines.
  if (!watchdog_) static_cast<void>(refusal_of([this] { watch(); }));
  signals_.fail(error);
}

// An event of before a reset must not pass for good because the failure is forgotten.
void Engine::check(Era const& era) {
  check_usable();
  std::lock_guard const lock(trouble_mutex_);  // with end_era(), which comes before the failure is forgotten
  if (!era.failure) return;
  throw_error(era.failure->code(), era.failure->what(),
              {.rank = era.failure->rank(), .peer = era.failure->peer(), .phase = era.failure->phase()});
}

// Kernels follow the routes of a handle blindly, and those of a failed dispatch may never have been written.
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
