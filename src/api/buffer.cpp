#include "switchyard/buffer.hpp"

#include "api/buffer_state.hpp"
#include "api/segments.hpp"
#include "base/check.hpp"
#include "base/config.hpp"

namespace switchyard {

namespace {

EngineKind chosen_here(BufferOptions const& options) {
  if (options.engine != EngineKind::automatic) return options.engine;
  std::string const setting = config_text(Setting::engine);
  if (setting == "cpu") return EngineKind::cpu;
  if (setting == "cuda") return EngineKind::cuda;
  return detail::why_no_cuda().empty() ? EngineKind::cuda : EngineKind::cpu;
}

// Collective: all ranks take the same engine, or none goes on.
EngineKind chosen(World& world, BufferOptions const& options) {
  EngineKind kind = EngineKind::cpu;
  agree(world, refusal_of([&] { kind = chosen_here(options); }));
  auto const all = world.all_gather(std::as_bytes(std::span(&kind, 1)));
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    auto const name = [](std::byte of) { return static_cast<EngineKind>(of) == EngineKind::cuda ? "cuda" : "cpu"; };
    throw InvalidArgument(fmt::format("rank {}: BufferOptions::engine: expected {} as on rank 0, seen {}", rank,
                                      name(all[0].at(0)), name(all[rank].at(0))),
                          {.rank = static_cast<int>(rank), .phase = "construction"});
  }
  return kind;
}

// What the copies of a Buffer share: the last one to go waits for the queued work, whose inputs the caller may free
// next. The tasks hold the state itself, so it lives even if a task is what lets go of the last Buffer.
std::shared_ptr<detail::BufferState> draining(std::shared_ptr<detail::BufferState> state) {
  detail::BufferState* const raw = state.get();
  return {raw, [state = std::move(state)](detail::BufferState*) { state->drain(); }};
}

}  // namespace

Buffer::Buffer(Communicator const& communicator, BufferOptions const& options)
    : state_(draining(chosen(*communicator.world(), options) == EngineKind::cuda
                          ? detail::make_cuda_buffer(communicator, options)
                          : detail::make_cpu_buffer(communicator, options))) {}

Layout Buffer::get_layout(ConstTensorView topk_idx, std::uintptr_t cuda_stream) const {
  return state_->get_layout(topk_idx, cuda_stream);
}

Dispatched Buffer::dispatch(ConstTensorView x, ConstTensorView topk_idx, ConstTensorView topk_weights) {
  return dispatch({.x = x, .topk_idx = topk_idx, .topk_weights = topk_weights});
}

Dispatched Buffer::dispatch(DispatchArgs const& args) {
  return state_->dispatch(args);
}

Pending<Dispatched> Buffer::dispatch_async(DispatchArgs const& args) {
  return state_->dispatch_async(args);
}

Tensor Buffer::combine(ConstTensorView x, Handle const& handle) {
  return combine({.x = x, .handle = handle}).x;
}

Combined Buffer::combine(CombineArgs const& args) {
  return state_->combine(args);
}

Pending<Combined> Buffer::combine_async(CombineArgs const& args) {
  return state_->combine_async(args);
}

Tensor Buffer::allocate(DType dtype, std::initializer_list<std::int64_t> shape) {
  return state_->allocate(dtype, shape);
}

void Buffer::synchronize() {
  state_->synchronize();
}

void Buffer::reset() {
  state_->reset();
}

void Buffer::gate() {
  state_->gate();
}

std::vector<PhaseTime> Buffer::phases() const {
  return state_->phases();
}

Stream& Buffer::stream() {
  return state_->stream();
}

std::uintptr_t Buffer::cuda_stream() const noexcept {
  return state_->cuda_stream();
}

EngineKind Buffer::engine() const noexcept {
  return state_->engine();
}

Communicator const& Buffer::communicator() const noexcept {
  return state_->communicator();
}

BufferOptions const& Buffer::options() const noexcept {
  return state_->options();
}

std::size_t Buffer::heap_bytes_used() const noexcept {
  return state_->allocator().used();
}

std::size_t Buffer::heap_bytes_peak() const noexcept {
  return state_->allocator().peak();
}

}  // namespace switchyard
