#include "api/engine_table.hpp"
#include "job/job.hpp"
#include "layout/experts.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard {

namespace {

// What the copies of a LowLatencyBuffer share: the last one to go waits for the queued work, whose inputs the
// caller may free next. Hooks hold the engine itself.
std::shared_ptr<detail::LowLatencyEngine> draining(std::shared_ptr<detail::LowLatencyEngine> engine) {
  detail::LowLatencyEngine* const raw = engine.get();
  return {raw, [engine = std::move(engine)](detail::LowLatencyEngine*) { engine->drain(); }};
}

std::shared_ptr<detail::LowLatencyEngine> make(Communicator const& communicator, LowLatencyOptions const& options) {
  Job& job = *communicator.job();
  // Over nodes a buffer is made by all ranks, or not at all.
  LossTolerance const tolerance(job, options.mask_late_peers && job.topology().num_nodes() == 1);
  EngineRow const& engine = choose_engine(job, "LowLatencyOptions", options.engine);
  return engine.make_low_latency(communicator, options);
}

}  // namespace

LowLatencyBuffer::LowLatencyBuffer(Communicator const& communicator, LowLatencyOptions const& options)
    : state_(draining(make(communicator, options))) {}

LowLatencyReceived LowLatencyBuffer::dispatch(LowLatencyDispatchArgs const& args) {
  return state_->dispatch(args);
}

LowLatencyReceived LowLatencyBuffer::send_dispatch(LowLatencyDispatchArgs const& args, ReceiveHook& receive) {
  return state_->send_dispatch(args, receive);
}

void LowLatencyBuffer::combine(LowLatencyCombineArgs const& args) {
  state_->combine(args);
}

void LowLatencyBuffer::send_combine(LowLatencyCombineArgs const& args, ReceiveHook& receive) {
  state_->send_combine(args, receive);
}

Tensor LowLatencyBuffer::outputs(LowLatencyHandle const& handle, DType dtype) {
  return state_->outputs(handle, dtype);
}

void LowLatencyBuffer::mask(int rank, bool masked) {
  state_->mask(rank, masked);
}

std::vector<bool> LowLatencyBuffer::masked() {
  return state_->masked();
}

void LowLatencyBuffer::reset() {
  state_->reset();
}

void LowLatencyBuffer::synchronize() {
  state_->synchronize();
}

EngineKind LowLatencyBuffer::engine() const noexcept {
  return state_->engine();
}

Communicator const& LowLatencyBuffer::communicator() const noexcept {
  return state_->communicator();
}

LowLatencyOptions const& LowLatencyBuffer::options() const noexcept {
  return state_->options();
}

std::int64_t LowLatencyBuffer::num_local_experts() const noexcept {
  return ExpertSplit(options().num_experts, communicator().size()).count(communicator().rank());
}

std::size_t LowLatencyBuffer::bytes() const noexcept {
  return state_->bytes();
}

}  // namespace switchyard
