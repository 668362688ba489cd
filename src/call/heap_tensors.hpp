// Tensors in this rank's symmetric heap, and the errors when there is no room for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string_view>

#include "base/refusal.hpp"
#include "memory/symmetric_heap.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard {

// A tensor at `data` that keeps `owner` alive.
Tensor tensor_at(std::byte* data, DType dtype, std::initializer_list<std::int64_t> shape, Device device,
                 std::shared_ptr<void> const& owner);

// A new tensor of the heap. Throws InvalidArgument for a shape that no tensor has, and OutOfMemory.
Tensor allocate_tensor(SymmetricHeap& heap, DType dtype, std::initializer_list<std::int64_t> shape, Device device);

// Why `what` cannot be had, which needs `bytes` of the heap.
Refusal no_room(SymmetricHeap const& heap, std::size_t bytes, std::string_view what);
// The same where `seen` bytes are free for it, which is not what the allocator has.
Refusal no_room(SymmetricHeap const& heap, std::size_t bytes, std::string_view what, std::size_t seen);
// The same for a tensor of the caller's that must be copied into the heap, because peers cannot read it where it
// is.
Refusal no_room_to_stage(SymmetricHeap const& heap, std::size_t bytes, std::int64_t rows);
// Throws what no_room() says as OutOfMemory.
[[noreturn]] void throw_no_room(SymmetricHeap const& heap, std::size_t bytes, std::string_view what);

}  // namespace switchyard
