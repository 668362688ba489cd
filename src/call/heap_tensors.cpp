#include "call/heap_tensors.hpp"

#include <limits>

#include "base/check.hpp"

namespace switchyard {

namespace {

// What would let the heap be larger.
std::string_view remedy(SymmetricHeap const& heap) {
  bool const grows = heap.heap_capacity(heap.rank()) > heap.heap_bytes(heap.rank());
  return grows ? "free other memory, since there is none left for it to grow" : "raise BufferOptions::heap_bytes";
}

// What is needed, for what, and what there is.
struct Shortage {
  std::size_t bytes;
  std::string_view what;
  std::size_t seen;
};

// `advice` says what the caller can do.
Refusal no_room(SymmetricHeap const& heap, Shortage const& shortage, std::string_view advice) {
  return {ErrorCode::out_of_memory,
          fmt::format("symmetric heap: expected {} free bytes for {}, seen {} of {}; {}", shortage.bytes,
                      shortage.what, shortage.seen, heap.allocator().capacity(), advice)};
}

}  // namespace

Tensor tensor_at(std::byte* data, DType dtype, std::initializer_list<std::int64_t> shape, Device device,
                 std::shared_ptr<void> const& owner) {
  TensorView view(data, dtype, shape);
  view.device = device;
  return {view, owner};
}

Tensor allocate_tensor(SymmetricHeap& heap, DType dtype, std::initializer_list<std::int64_t> shape, Device device) {
  require(shape.size() >= 1 && shape.size() <= max_dims, "shape: expected 1..{} dimensions, seen {}", max_dims,
          shape.size());
  for (std::int64_t const extent : shape)
    require(extent >= 0, "shape: expected extents of 0 or more, seen {}", extent);
  std::size_t bytes = size_of(dtype);
  bool overflows = false;
  for (std::int64_t const extent : shape)
    overflows = __builtin_mul_overflow(bytes, static_cast<std::size_t>(extent), &bytes) || overflows;
  if (overflows) throw_no_room(heap, std::numeric_limits<std::size_t>::max(), "a tensor");
  auto const block = heap.allocate_growing(bytes);
  if (!block) throw_no_room(heap, bytes, "a tensor");
  return tensor_at(block->data, dtype, shape, device, block->owner);
}

Refusal no_room(SymmetricHeap const& heap, std::size_t bytes, std::string_view what) {
  return no_room(heap, bytes, what, heap.allocator().largest_free());
}

Refusal no_room(SymmetricHeap const& heap, std::size_t bytes, std::string_view what, std::size_t seen) {
  return no_room(heap, Shortage{bytes, what, seen}, fmt::format("free results earlier or {}", remedy(heap)));
}

Refusal no_room_to_stage(SymmetricHeap const& heap, std::size_t bytes, std::int64_t rows) {
  return no_room(
      heap, Shortage{bytes, fmt::format("a copy of a tensor of {} rows", rows), heap.allocator().largest_free()},
      fmt::format("write into a tensor of Buffer::allocate or {}", remedy(heap)));
}

void throw_no_room(SymmetricHeap const& heap, std::size_t bytes, std::string_view what) {
  Refusal const refusal = no_room(heap, bytes, what);
  throw_error(refusal.code, refusal.text, {.rank = heap.rank()});
}

}  // namespace switchyard
