#include "call/throughput_parts.hpp"

#include <algorithm>
#include <limits>
#include <thread>

#include "base/check.hpp"
#include "base/config.hpp"
#include "layout/fp8.hpp"
#include "node/agreement.hpp"
#include "node/host_heap.hpp"

namespace switchyard {

namespace {

Decisions decide(BufferOptions const& options, int num_ranks) {
  check_options(options, num_ranks);
  int const cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  std::chrono::milliseconds const usual{config_number(Setting::timeout_ms)};
  Decisions made;
  made.plan = plan_buffer(options, {.num_ranks = num_ranks, .cores = cores}, config_number(Setting::spin_us));
  made.wait = {.timeout = options.timeout.count() > 0 ? options.timeout : usual, .spin = made.plan.spin};
  return made;
}

Tensor tensor_at(std::byte* data, DType dtype, std::initializer_list<std::int64_t> shape, Device device,
                 std::shared_ptr<void> const& owner) {
  TensorView view(data, dtype, shape);
  view.device = device;
  return Tensor(view, owner);
}

}  // namespace

Decisions decide_together(Node& node, BufferOptions const& options) {
  Decisions made;
  agree(node, refusal_of([&] { made = decide(options, node.size()); }));
  return made;
}

ReceiveShape shape_of(DispatchArgs const& args, OutputLayout layout, std::int64_t top_k) {
  bool const fp8 = args.cast_to_fp8 || args.x.dtype == DType::f8e4m3;
  auto const hidden = static_cast<std::size_t>(args.x.size(1));
  auto const slots = static_cast<std::size_t>(top_k);
  bool const flat = layout == OutputLayout::flat;
  return {.rows = args.num_worst_tokens,
          .row_bytes = hidden * (fp8 ? 1 : size_of(args.x.dtype)),
          .scale_bytes = fp8 ? static_cast<std::size_t>(scale_groups(args.x.size(1))) * sizeof(float) : 0,
          .topk_bytes = args.topk_idx.given() && flat ? slots * size_of(args.topk_idx.dtype) : 0,
          .weight_bytes = args.topk_weights.given() ? (flat ? slots : 1) * sizeof(float) : 0};
}

void describe(DispatchArgs const& args, BufferFacts const& buffer, int rank, detail::Routing& routing) {
  routing.buffer_id = buffer.buffer_id;
  routing.layout = args.layout;
  routing.rank = rank;
  routing.num_tokens = args.x.size(0);
  routing.expert_alignment = args.expert_alignment;
  routing.top_k = args.topk_idx.given() ? args.topk_idx.size(1) : 0;
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
  result.x = tensor_at(data + parts.x, dtype, {shape.rows, args.x.size(1)}, device, owner);
  if (groups > 0) result.scales = tensor_at(data + parts.scales, DType::f32, {shape.rows, groups}, device, owner);
  if (shape.topk_bytes > 0) {
    result.topk_idx = tensor_at(data + parts.topk_idx, args.topk_idx.dtype, {shape.rows, top_k}, device, owner);
  }
  if (shape.weight_bytes > 0 && flat) {
    result.topk_weights = tensor_at(data + parts.topk_weights, DType::f32, {shape.rows, top_k}, device, owner);
  } else if (shape.weight_bytes > 0) {
    result.topk_weights = tensor_at(data + parts.topk_weights, DType::f32, {shape.rows}, device, owner);
  }
  result.source_token = tensor_at(data + parts.source_token, DType::i32, {shape.rows}, device, owner);
}

void throw_no_memory(SymmetricHeap const& heap, std::size_t bytes, std::string_view what) {
  auto const& allocator = heap.allocator();
  throw OutOfMemory(
      fmt::format("symmetric heap: expected {} free bytes for {}, seen {} of {}; free results earlier or raise "
                  "BufferOptions::heap_bytes",
                  bytes, what, allocator.largest_free(), allocator.capacity()),
      {.rank = heap.rank()});
}

Tensor allocate_tensor(SymmetricHeap& heap, DType dtype, std::initializer_list<std::int64_t> shape, Device device) {
  require(shape.size() >= 1 && shape.size() <= max_dims, "shape: expected 1..{} dimensions, seen {}", max_dims,
          shape.size());
  for (std::int64_t const extent : shape)
    require(extent >= 0, "shape: expected extents of 0 or more, seen {}", extent);
  std::size_t bytes = size_of(dtype);
  bool too_large = false;
  for (std::int64_t const extent : shape)
    too_large = __builtin_mul_overflow(bytes, static_cast<std::size_t>(extent), &bytes) || too_large;
  if (too_large) throw_no_memory(heap, std::numeric_limits<std::size_t>::max(), "a tensor");
  auto const block = heap.allocate(bytes);
  if (!block) throw_no_memory(heap, bytes, "a tensor");
  return tensor_at(block->data, dtype, shape, device, block->owner);
}

void prepare_outputs(CombineCall& call, SymmetricHeap& heap, CombineSizes const& sizes, Combined& result) {
  CombineArgs const& args = call.args;
  detail::Routing const& routing = *args.handle.routing();
  call.out = args.out;
  if (!args.out.given()) {
    result.x = allocate_tensor(heap, args.x.dtype, {routing.num_tokens, sizes.hidden}, sizes.device);
    call.out = result.x;
  }
  if (args.topk_weights.given()) {
    result.topk_weights = allocate_tensor(heap, DType::f32, {routing.num_tokens, routing.top_k}, sizes.device);
    call.out_weights = result.topk_weights;
  }
}

}  // namespace switchyard
