#include "call/throughput.hpp"

#include <algorithm>
#include <array>

#include "call/heap_tensors.hpp"
#include "layout/fp8.hpp"

namespace switchyard {

CallTerms terms_of(DispatchCall const& call) {
  DispatchArgs const& args = call.args;
  bool const cached = call.fresh == nullptr;
  CallTerms terms;
  terms[Term::operation] = 1;
  terms[Term::dtype] = static_cast<std::int64_t>(args.x.dtype);
  terms[Term::hidden] = args.x.size(1);
  terms[Term::routing] = cached ? 3 : args.token_in_rank.given() ? 2 : 1;
  terms[Term::top_k] = call.routing->top_k;
  terms[Term::topk_dtype] = args.topk_idx.given() ? static_cast<std::int64_t>(args.topk_idx.dtype) : -1;
  terms[Term::topk_weights] = args.topk_weights.given() ? 1 : 0;
  terms[Term::scales] = term_of_scales({args.cast_to_fp8 ? DType::f32 : args.scales.dtype, call.shape.scale_bytes});
  terms[Term::cast] = args.cast_to_fp8 ? 1 : 0;
  terms[Term::layout] = static_cast<std::int64_t>(call.routing->layout);
  terms[Term::alignment] = call.routing->expert_alignment;
  terms[Term::worst_tokens] = args.num_worst_tokens;
  terms[Term::range] = call.range;
  terms[Term::dispatch] = cached ? static_cast<std::int64_t>(call.routing->dispatch) : -1;
  return terms;
}

CallTerms terms_of(CombineCall const& call) {
  CombineArgs const& args = call.args;
  CallTerms terms;
  terms[Term::operation] = 2;
  terms[Term::dtype] = static_cast<std::int64_t>(args.x.dtype);
  terms[Term::hidden] = args.x.size(1);
  // Columns are compared where the routes do not fix their number.
  bool const any_slots = args.weights_of_all_ranks && args.topk_weights.given() && args.handle.given();
  terms[Term::topk_weights] = any_slots ? 1 + returned_slots(args) : args.topk_weights.given() ? 1 : 0;
  terms[Term::row_weights] = args.row_weights.given() ? 1 : 0;
  terms[Term::dispatch] = args.handle.given() ? static_cast<std::int64_t>(args.handle.routing()->dispatch) : -1;
  return terms;
}

std::int64_t returned_slots(CombineArgs const& args) {
  detail::Routing const& routing = *args.handle.routing();
  return args.weights_of_all_ranks && args.topk_weights.ndim == 2 ? args.topk_weights.size(1) : routing.top_k;
}

std::uint64_t digest_of(CallTerms const& terms) {
  std::uint64_t digest = 0xcbf2'9ce4'8422'2325;  // FNV-1a, by words
  for (std::int64_t const value : terms.values) {
    digest = (digest ^ static_cast<std::uint64_t>(value)) * 0x100'0000'01b3;
    digest ^= digest >> 29;
  }
  return digest != 0 ? digest : 1;
}

ReceiveShape shape_of(DispatchArgs const& args, OutputLayout layout, std::int64_t top_k) {
  bool const fp8 = args.cast_to_fp8 || args.x.dtype == DType::f8e4m3;
  auto const hidden = static_cast<std::size_t>(args.x.size(1));
  std::int64_t const groups = args.cast_to_fp8 ? scale_groups(args.x.size(1)) : args.scales.size(1);
  auto const slots = static_cast<std::size_t>(top_k);
  bool const flat = layout == OutputLayout::flat;
  return {.rows = args.num_worst_tokens,
          .row_bytes = hidden * (fp8 ? 1 : size_of(args.x.dtype)),
          .scale_bytes = fp8 ? static_cast<std::size_t>(groups) * sizeof(float) : 0,
          .topk_bytes = args.topk_idx.given() && flat ? slots * size_of(args.topk_idx.dtype) : 0,
          .weight_bytes = args.topk_weights.given() ? (flat ? slots : 1) * sizeof(float) : 0};
}

void describe(DispatchArgs const& args, BufferInfo const& buffer, int rank, detail::Routing& routing) {
  routing.buffer_id = buffer.buffer_id;
  routing.layout = args.layout;
  routing.rank = rank;
  routing.num_tokens = args.x.size(0);
  routing.expert_alignment = args.expert_alignment;
  routing.top_k = args.topk_idx.given() ? args.topk_idx.size(1) : 0;
}

static_assert(description_alignment % BlockAllocator::granule == 0);

namespace {

std::shared_ptr<void> both(std::shared_ptr<void> const& first, std::shared_ptr<void> const& second) {
  return std::make_shared<std::pair<std::shared_ptr<void>, std::shared_ptr<void>>>(first, second);
}

// A tensor of the heap as it is now; empty where that has no room.
Tensor room(SymmetricHeap& heap, DType dtype, std::array<std::int64_t, 2> shape, Device device) {
  auto const bytes = static_cast<std::size_t>(shape[0]) * static_cast<std::size_t>(shape[1]) * size_of(dtype);
  auto const block = heap.allocate(bytes);
  if (!block) return {};
  return tensor_at(block->data, dtype, {shape[0], shape[1]}, device, block->owner);
}

}  // namespace

void divide_block(SymmetricHeap& heap, DispatchCall& call) {
  call.description = heap.split(*call.block, receive_block(call.shape).description);
}

void fill_tensors(DispatchCall const& call, Device device, Dispatched& result) {
  auto const& [offset, data, owner] = *call.block;
  ReceiveShape const& shape = call.shape;
  ReceiveBlock const parts = receive_block(shape);
  DispatchArgs const& args = call.args;
  DType const dtype = args.cast_to_fp8 ? DType::f8e4m3 : args.x.dtype;
  std::int64_t const groups = static_cast<std::int64_t>(shape.scale_bytes / sizeof(float));
  std::int64_t const top_k = call.routing->top_k;
  bool const flat = call.routing->layout == OutputLayout::flat;
  auto const& kept = call.description ? call.description->owner : owner;
  auto const rows_owner = call.description ? both(owner, kept) : owner;
  result.x = tensor_at(data + parts.x, dtype, {shape.rows, args.x.size(1)}, device, rows_owner);
  if (groups > 0)
    result.scales = tensor_at(data + parts.scales, args.cast_to_fp8 ? DType::f32 : args.scales.dtype,
                              {shape.rows, groups}, device, rows_owner);
  if (shape.topk_bytes > 0) {
    result.topk_idx = tensor_at(data + parts.topk_idx, args.topk_idx.dtype, {shape.rows, top_k}, device, kept);
  }
  if (shape.weight_bytes > 0 && flat) {
    result.topk_weights = tensor_at(data + parts.topk_weights, DType::f32, {shape.rows, top_k}, device, kept);
  } else if (shape.weight_bytes > 0) {
    result.topk_weights = tensor_at(data + parts.topk_weights, DType::f32, {shape.rows}, device, kept);
  }
  result.source_token = tensor_at(data + parts.source_token, DType::i32, {shape.rows}, device, kept);
}

Tensor room_by_column(SymmetricHeap& heap, ConstTensorView const& scales, Device device) {
  constexpr std::int64_t words = 4;  // of the 16 bytes at which the copy engines begin
  std::int64_t const pitch = std::max<std::int64_t>(1, (scales.size(0) + words - 1) / words) * words;
  Tensor const columns = room(heap, scales.dtype, {scales.size(1), pitch}, device);
  if (!columns.given()) return {};
  TensorView view = columns.view();
  view.shape = {scales.size(0), scales.size(1)};
  view.strides = {1, pitch};
  return {view, columns.owner()};
}

Tensor room_for_dense(SymmetricHeap& heap, ConstTensorView const& source, Device device) {
  return room(heap, source.dtype, {source.size(0), source.size(1)}, device);
}

Tensor room_for_copy(SymmetricHeap& heap, ConstTensorView const& source, Device device) {
  bool const has_gaps = source.stride(1) != 1 || source.stride(0) != source.size(1);
  return has_gaps ? Tensor{} : room_for_dense(heap, source, device);
}

void prepare_outputs(CombineCall& call, SymmetricHeap& heap, BufferInfo const& buffer, Combined& result) {
  CombineArgs const& args = call.args;
  detail::Routing const& routing = *args.handle.routing();
  call.out = args.out;
  if (!args.out.given()) {
    result.x = allocate_tensor(heap, args.x.dtype, {routing.num_tokens, buffer.options.hidden}, buffer.device);
    call.out = result.x;
  }
  if (args.topk_weights.given() && !call.out_weights.given()) {
    result.topk_weights =
        allocate_tensor(heap, DType::f32, {routing.num_tokens, returned_slots(args)}, buffer.device);
    call.out_weights = result.topk_weights;
  }
}

}  // namespace switchyard
