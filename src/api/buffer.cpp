#include "switchyard/buffer.hpp"

#include "api/engine_table.hpp"
#include "memory/shortage.hpp"
#include "memory/stream_uses.hpp"

namespace switchyard {

namespace {

// What the copies of a Buffer share: the last one to go waits for the queued work, whose inputs the caller may free
// next. Tasks hold the engine itself, so it lives even if the last Buffer goes within a task.
std::shared_ptr<detail::ThroughputEngine> draining(std::shared_ptr<detail::ThroughputEngine> engine) {
  detail::ThroughputEngine* const raw = engine.get();
  return {raw, [engine = std::move(engine)](detail::ThroughputEngine*) { engine->drain(); }};
}

std::shared_ptr<detail::ThroughputEngine> make_engine(Communicator const& communicator,
                                                      BufferOptions const& options) {
  EngineRow const& engine = choose_engine(*communicator.job(), "BufferOptions", options.engine);
  return engine.make_throughput(communicator, options);
}

}  // namespace

Buffer::Buffer(Communicator const& communicator, BufferOptions const& options)
    : state_(draining(make_engine(communicator, options))) {}

Layout Buffer::get_layout(ConstTensorView topk_idx, std::uintptr_t cuda_stream) const {
  return state_->get_layout(topk_idx, cuda_stream);
}

Pending<Layout> Buffer::get_layout_async(ConstTensorView topk_idx, std::uintptr_t cuda_stream) const {
  return state_->get_layout_async(topk_idx, cuda_stream);
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

bool Buffer::add_received(Handle const& handle, TensorView to, std::uintptr_t cuda_stream) {
  return state_->add_received(handle, to, cuda_stream);
}

Tensor Buffer::by_column(ConstTensorView scales, std::uintptr_t cuda_stream) {
  return state_->by_column(scales, cuda_stream);
}

Tensor Buffer::copy(ConstTensorView source, std::uintptr_t cuda_stream) {
  return state_->copy(source, cuda_stream);
}

void Buffer::synchronize() {
  state_->synchronize();
}

void Buffer::reset() {
  state_->reset();
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
  return state_->heap().allocator().used();
}

std::size_t Buffer::heap_bytes_peak() const noexcept {
  return state_->heap().allocator().peak();
}

std::size_t Buffer::heap_bytes_now() const noexcept {
  return state_->heap().allocator().capacity();
}

std::size_t Buffer::trim() {
  return state_->trim();
}

void record_stream(void const* data, std::uintptr_t cuda_stream) noexcept {
  note_stream_use(data, cuda_stream);
}

void on_memory_shortage(std::function<void()> relief) {
  set_shortage_relief(std::move(relief));
}

}  // namespace switchyard
