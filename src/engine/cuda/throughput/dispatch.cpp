// The host side of a dispatch: notify, allocate by the counts, place.
#include <fmt/core.h>

#include <cstring>

#include "base/check.hpp"
#include "call/heap_tensors.hpp"
#include "engine/cuda/host/rows.hpp"
#include "engine/cuda/throughput/engine.hpp"
#include "engine/cuda/throughput/launch.hpp"
#include "layout/fp8.hpp"
#include "plan/copy_plan.hpp"
#include "plan/round_plan.hpp"

namespace switchyard::cuda {

namespace {

constexpr std::int64_t most_rows = 0x7fffffff;
// The heap may grow for a guess of so many times what the latest dispatch received.
constexpr std::size_t most_guess = 4;

std::optional<SymmetricHeap::Block> block_in(detail::RoundRoom const& room, std::size_t bytes) {
  if (bytes > room.bytes) return std::nullopt;
  return SymmetricHeap::Block{.offset = room.offset, .data = room.data, .owner = room.owner};
}

HandleSizes sizes_of(detail::Routing const& routing, DeviceSizes const& sizes) {
  bool const flat = routing.layout == OutputLayout::flat;
  return {.num_tokens = routing.num_tokens,
          .width = routing.width,
          .top_k = flat ? static_cast<int>(routing.top_k) : 0,
          .num_ranks = sizes.num_ranks,
          .max_local_experts = sizes.max_local_experts};
}

ReceivedNumbers view_of_numbers(TensorView const& to) {
  if (!to.given()) return {};
  return {.to = to.data, .stride = to.stride(0), .wide = to.dtype == DType::i64};
}

}  // namespace

// Few tokens are not divided: putting ranges together would take longer.
LayoutCut Engine::cut_for_dispatch(DeviceHandle const& handle, int blocks) const {
  constexpr int turns = 2;  // that take a block as long
  int const slots = handle.top_k > 0 ? handle.top_k : resources_.control.num_ranks;
  bool const few = !handle.expanded && handle.num_tokens <= turns * tokens_counted_at_once(slots);
  return cut(handle.num_tokens, few ? 1 : blocks);
}

LayoutCut Engine::cut(std::int64_t tokens, int blocks) const {
  std::int64_t const most = std::min(blocks, resources_.control.layout_blocks());
  std::int64_t const range = std::max<std::int64_t>((tokens + most - 1) / most, 1);
  return {.blocks = static_cast<int>(std::max<std::int64_t>((tokens + range - 1) / range, 1)), .tokens = range};
}

DeviceHandle Engine::device_handle(detail::Routing const& routing) const {
  if (routing.device == nullptr) return {};
  DeviceHandleLayout const at = device_handle_layout(sizes_of(routing, resources_.control));
  std::byte* const base = routing.device;
  bool const flat = routing.layout == OutputLayout::flat;
  return {.routes = reinterpret_cast<DeviceRoute*>(base + at.routes),
          .slot_rank = flat && routing.top_k > 0 ? reinterpret_cast<std::int16_t*>(base + at.slot_rank) : nullptr,
          .rows_of_rank = reinterpret_cast<std::int64_t*>(base + at.rows_of_rank),
          .padded = reinterpret_cast<std::int32_t*>(base + at.padded),
          .real = reinterpret_cast<std::int32_t*>(base + at.real),
          .rows = reinterpret_cast<std::int64_t*>(base + at.rows),
          .recv_ends = reinterpret_cast<std::int32_t*>(base + at.recv_ends),
          .recv_counts = reinterpret_cast<std::int32_t*>(base + at.recv_counts),
          .num_tokens = routing.num_tokens,
          .width = routing.width,
          .top_k = static_cast<int>(routing.top_k),
          .expanded = !flat};
}

// Memory that only kernels of this rank use: of the heap, or outside of it when the heap has none left. Without any
// the call is refused. What a round takes always lies outside: its handle outlives its rows, and in the heap it
// would keep later calls from memory that this one had.
std::optional<Engine::PrivateMemory> Engine::take_private(DispatchCall& call, std::size_t bytes,
                                                          std::string const& what) {
  if (!call.room) {
    if (auto block = take(bytes)) return PrivateMemory{std::move(*block), true};
  }
  if (capturing_) {  // memory outside would belong to the graph
    call.refusal = no_room(*heap_, bytes, what);
    return std::nullopt;
  }
  std::shared_ptr<std::byte> owner;
  call.refusal = refusal_of([&] { owner = call.outside(bytes); });
  if (call.refusal) return std::nullopt;
  return PrivateMemory{{.offset = 0, .data = owner.get(), .owner = owner}, false};
}

// Memory for the device side of the handle; without it the call is refused.
void Engine::prepare_handle(DispatchCall& call) {
  detail::Routing& routing = *call.fresh;
  bool const flat = routing.layout == OutputLayout::flat;
  int const top_k = static_cast<int>(routing.top_k);
  int const num_ranks = resources_.control.num_ranks;
  routing.width = top_k == 0 ? num_ranks : flat ? std::min(top_k, num_ranks) : top_k;
  std::size_t const bytes = device_handle_layout(sizes_of(routing, resources_.control)).bytes;
  auto memory = take_private(call, bytes, "a handle");
  if (!memory) return;
  routing.device = memory->block.data;
  routing.recv_counts = TensorView(device_handle(routing).recv_counts, DType::i32,
                                   {num_ranks, 1 + resources_.control.max_local_experts});
  routing.recv_counts.device = Device::cuda;
  routing.device_owner = memory->block.owner;
  // Memory outside of the heap is freed in the order of the stream, behind all kernels that use it.
  if (memory->in_heap) keep_until_done(std::move(memory->block));
}

// What the notify phases need, in a kernel of their own or at the start of the dispatch kernel.
void Engine::fill(DispatchCall const& call, NotifyKernelArgs& to) const {
  switchyard::DispatchArgs const& args = call.args;
  to.experts = experts_;
  to.peers = peers_;
  to.waiting = waiting();
  if (call.routing && call.routing->device != nullptr) to.handle = device_handle(*call.routing);
  if (call.refusal) to.handle.num_tokens = 0;
  to.cut = cut_for_dispatch(to.handle, call.workers);
  to.has_block = call.block.has_value();
  to.block_offset = call.block ? call.block->offset : 0;
  if (call.refusal) return;
  to.ids = view_of_ids(args.topk_idx);
  to.token_in_rank = static_cast<std::uint8_t const*>(args.token_in_rank.data);
  to.in_rank_strides[0] = args.token_in_rank.stride(0);
  to.in_rank_strides[1] = args.token_in_rank.stride(1);
  to.max_count = resources_.control.max_tokens * std::max<std::int64_t>(to.handle.top_k, 1);
  to.worst_rows = args.num_worst_tokens;
  to.alignment = call.routing->expert_alignment;
  to.digest = digest_of(terms_of(call));
}

void Engine::notify(DispatchCall& call) {
  NotifyKernelArgs args{};
  fill(call, args);
  args.ticket = ++ticket_;
  check_cuda(launch_notify(args, stream_.get()), "launching the notify kernel");
}

// The id at fault, as the CPU engine's text has it.
void Engine::find_bad_id(DispatchCall& call) {
  std::int64_t const place = mailbox().get().bad_id;
  if (call.refusal || place < 0 || !call.args.topk_idx.given()) return;
  ConstTensorView const& ids = call.args.topk_idx;
  std::int64_t const token = place / 64;
  std::int64_t const slot = place % 64;
  std::int64_t value = 0;
  std::size_t const size = size_of(ids.dtype);
  auto const* const at = static_cast<std::byte const*>(ids.data) +
                         (token * ids.stride(0) + slot * ids.stride(1)) * static_cast<std::int64_t>(size);
  check_cuda(cudaMemcpyAsync(&value, at, size, cudaMemcpyDeviceToHost, stream_.get()), "reading an id");
  check_cuda(cudaStreamSynchronize(stream_.get()), "reading an id");
  if (size == 4) {
    std::int32_t narrow = 0;
    std::memcpy(&narrow, &value, sizeof narrow);
    value = narrow;
  }
  call.refusal = Refusal{ErrorCode::invalid_argument, fmt::format("topk_idx[{}, {}]: expected -1 or 0..{}, seen {}",
                                                                  token, slot, experts_.num_experts() - 1, value)};
}

// What the notify kernel found, for the caller and for the allocation.
void Engine::finish_counting(DispatchCall& call) {
  // That of an earlier call, whose host did not wait, says nothing about this one.
  if (mailbox().has_trouble() && mailbox().get().trouble.call < first_ticket_) monitor_.check_usable();
  // A receiver that has no room may have answered so already. Then counts are there all the same, as on the other
  // ranks, which learn of it later.
  bool const refused_room = mailbox().has_trouble() && mailbox().get().trouble.kind == TroubleKind::mismatch &&
                            mailbox().get().trouble.point == WaitPoint::answer;
  if (!refused_room) {
    if (mailbox().has_trouble()) {
      // A block that began late may have published the ticket before the one that knows of a bad id wrote it down.
      check_cuda(cudaStreamSynchronize(stream_.get()), "waiting for a call that failed");
      find_bad_id(call);
    }
    throw_if_failed({.terms = terms_of(call), .refusal = call.refusal, .phase = "dispatch/announce"});
  }
  read_placement(call);
  if (refused_room) throw_if_failed({.terms = terms_of(call), .refusal = call.refusal, .phase = "dispatch/answer"});
}

void Engine::read_placement(DispatchCall& call) {
  Placement& placement = call.fresh->placement;
  Mailbox const& published = mailbox().get();
  placement.rows = published.rows;
  call.fresh->counted = true;
  bool const flat = call.fresh->layout == OutputLayout::flat;
  placement.recv_rows_end.assign(published.recv_rows_end, published.recv_rows_end + heap_->num_ranks());
  std::int64_t end = 0;
  for (std::int64_t& rows : placement.recv_rows_end) rows = end = std::max(end, rows);
  if (!flat) placement.recv_rows_end.clear();
  if (call.fresh->top_k == 0) return;
  auto const local = static_cast<std::size_t>(experts_.count(heap_->rank()));
  auto const padded = mailbox().padded().first(local);
  auto const real = mailbox().real().first(local);
  placement.tokens_per_expert.assign(padded.begin(), padded.end());
  placement.real_tokens_per_expert.assign(real.begin(), real.end());
}

// Room for all that could arrive, if the heap has it: rows can then move before the host knows how many.
void Engine::guess_block(DispatchCall& call) {
  detail::Routing const& routing = *call.routing;
  std::int64_t const sources = resources_.control.max_tokens * resources_.control.num_ranks;
  std::int64_t rows = sources;
  if (routing.layout == OutputLayout::expanded) {
    int const local = experts_.count(heap_->rank());
    // A slot has a row of its own, also where a token names one expert several times.
    rows = local == 0 ? 0
                      : sources * routing.top_k + static_cast<std::int64_t>(local) * (routing.expert_alignment - 1);
  }
  if (rows > most_rows) return;
  std::size_t const bytes = block_bytes(call, rows);
  if (call.room) {
    call.block = block_in(*call.room, bytes);
    return;
  }
  call.block = heap_->allocate(bytes);
  // Nobody should pay in memory for what never comes, where max_tokens says little about the calls.
  if (!call.block && bytes / most_guess <= latest_bytes_) call.block = heap_->allocate_from_spare(bytes);
}

// What a round of so many rows may take later, if that is more, is asked for at once: by then it cannot be divided.
std::size_t Engine::block_bytes(DispatchCall const& call, std::int64_t rows) {
  if (call.room && call.fresh)
    return round_bytes({.hidden = call.args.x.size(1), .top_k = call.routing->top_k}, rows);
  ReceiveShape shape = call.shape;
  shape.rows = rows;
  return receive_block(shape).bytes;
}

// The block was for all that could arrive; this is what did.
void Engine::trim_block(DispatchCall& call) {
  call.shape.rows = call.routing->placement.rows;
  if (call.room) return;
  latest_bytes_ = block_bytes(call, call.shape.rows);
  heap_->trim(*call.block, latest_bytes_);
}

// One kernel does it all. Unless the caller wants to know no counts, the host waits for them, while rows move.
void Engine::place_at_once(DispatchCall& call, OutgoingRows const& rows) {
  if (call.args.num_worst_tokens > 0) monitor_.report_mismatch_of(first_ticket_);
  place(call, rows, DispatchStart::notify);
  if (call.args.num_worst_tokens > 0) return;
  wait_for_ticket();
  finish_counting(call);
  trim_block(call);
  if (mailbox().get().answers_are_certain == 0) finish_answers(call);
}

// The host allocates by the counts; a second kernel then answers the sources.
void Engine::place_when_counted(DispatchCall& call, OutgoingRows const& rows) {
  notify(call);
  wait_for_ticket();
  finish_counting(call);
  allocate_block(call);
  place(call, rows, DispatchStart::counted);
  finish_answers(call);
}

void Engine::place_cached(DispatchCall& call, OutgoingRows const& rows) {
  allocate_block(call);
  bool const waits = call.waits || call.refusal.has_value();
  if (!waits) monitor_.report_mismatch_of(first_ticket_);
  place(call, rows, DispatchStart::cached);
  if (waits) finish_answers(call);
}

// A receiver that had to ask its host may refuse; then all ranks throw.
void Engine::finish_answers(DispatchCall& call) {
  wait_for_answers();
  throw_if_failed({.terms = terms_of(call), .refusal = call.refusal, .phase = "dispatch/answer"});
}

void Engine::allocate_block(DispatchCall& call) {
  if (call.block || call.refusal) return;
  detail::Routing const& routing = *call.routing;
  auto const own = static_cast<std::size_t>(heap_->rank());
  call.shape.rows = call.fresh ? routing.placement.rows : routing.rows_of_rank[own];
  if (call.shape.rows > most_rows) {
    call.refusal = Refusal{ErrorCode::invalid_argument,
                           fmt::format("rows received: expected at most {}, seen {}", most_rows, call.shape.rows)};
    return;
  }
  std::size_t const bytes = block_bytes(call, call.shape.rows);
  if (!call.room) latest_bytes_ = bytes;
  call.block = call.room ? block_in(*call.room, bytes) : take(bytes);
  if (call.block) return;
  std::size_t const seen = call.room ? call.room->bytes : heap_->allocator().largest_free();
  call.refusal = no_room(*heap_, bytes, fmt::format("{} rows received", call.shape.rows), seen);
}

// What travels: the caller's rows, or what the cast makes of them in the heap. May refuse the call.
Engine::OutgoingRows Engine::prepare_rows(DispatchCall& call) {
  switchyard::DispatchArgs const& from = call.args;
  OutgoingRows rows{};
  if (call.refusal) return rows;
  rows.x.from = static_cast<std::byte const*>(from.x.data);
  rows.x.stride = row_stride_of(from.x);
  rows.x.bytes = static_cast<std::uint32_t>(call.shape.row_bytes);
  rows.scales = static_cast<float const*>(from.scales.data);
  rows.scale_strides[0] = from.scales.stride(0);
  rows.scale_strides[1] = from.scales.stride(1);
  if (from.cast_to_fp8) cast(call, rows);
  SmProblem of_call = problem_;
  of_call.max_tokens = from.x.size(0);
  rows.copies = plan_copies(suits_bulk_copies(rows.x.from, rows.x.stride, rows.x.bytes) ? rows.x.bytes : 0,
                            rings_.dispatch, enough_loads(of_call, call.workers));
  rows.x.piece = rows.copies.piece;
  return rows;
}

void Engine::cast(DispatchCall& call, OutgoingRows& rows) {
  ConstTensorView const& x = call.args.x;
  std::int64_t const groups = scale_groups(x.size(1));
  std::size_t const values = align_up(static_cast<std::size_t>(x.numel()), part_alignment);
  std::size_t const bytes = values + static_cast<std::size_t>(x.size(0) * groups) * sizeof(float);
  auto memory = take_private(call, bytes, "the cast of x");
  if (!memory) return;
  std::byte* const data = memory->block.data;
  auto* const scales = reinterpret_cast<float*>(data + values);
  check_cuda(launch_cast({.from = static_cast<std::byte const*>(x.data),
                          .row_stride = x.stride(0),
                          .dtype = x.dtype,
                          .tokens = x.size(0),
                          .hidden = x.size(1),
                          .values = reinterpret_cast<std::uint8_t*>(data),
                          .scales = scales},
                         4 * call.workers, stream_.get()),
             "launching the cast kernel");
  rows.x.from = data;
  rows.x.stride = x.size(1);
  rows.scales = scales;
  rows.scale_strides[0] = groups;
  rows.scale_strides[1] = 1;
  if (memory->in_heap) {
    keep_own(std::move(memory->block));
  } else {
    rows.outside = memory->block.owner;
  }
}

// Room for a copy of the ids. After the block of the result: it must not take the room of that.
void Engine::take_ids(DispatchCall& call) {
  switchyard::DispatchArgs const& args = call.args;
  if (!args.keep_ids || !call.fresh || !args.topk_idx.given() || call.refusal || call.room || capturing_) return;
  call.ids = room_for_dense(*heap_, args.topk_idx, Device::cuda);
  if (call.ids.given()) keep_until_done({.offset = 0, .data = nullptr, .owner = call.ids.owner()});
}

void Engine::place(DispatchCall& call, OutgoingRows const& rows, DispatchStart start) {
  switchyard::DispatchArgs const& from = call.args;
  DispatchKernelArgs args{};
  fill(call, args);
  args.ticket = ++ticket_;
  args.number = calls_;
  args.start = start;
  args.refused = call.refusal.has_value();
  args.shape = call.shape;
  args.x = rows.x;
  args.scales = rows.scales;
  args.scale_strides[0] = rows.scale_strides[0];
  args.scale_strides[1] = rows.scale_strides[1];
  args.stages = rows.copies.stages;
  args.row_warps = rows.copies.warps;
  args.weights = view_of_weights(from.topk_weights);
  take_ids(call);
  args.ids_copy = call.ids.given() ? call.ids.view().data : nullptr;
  if (!call.refusal) args.received = view_of_numbers(from.received_per_expert);
  args.zero_padding = from.zero_padding;
  args.first_token = call.first_token;
  check_cuda(launch_dispatch(args, call.workers, stream_.get()), "launching the dispatch kernel");
}

void Engine::dispatch(DispatchCall& call, cudaStream_t caller) {
  check_usable();
  CurrentDevice const current(resources_.device);
  bool const worst = call.args.num_worst_tokens > 0;
  join(caller);
  begin_call(Call::dispatch);
  if (!call.fresh && !call.refusal) call.refusal = why_void(*call.routing);
  if (call.fresh && !call.refusal) prepare_handle(call);
  OutgoingRows const rows = prepare_rows(call);
  if (call.fresh && !call.refusal && !worst) guess_block(call);
  refuse_in_capture(call.refusal);
  if (!call.fresh) {
    place_cached(call, rows);
  } else if (call.block && !call.refusal) {
    place_at_once(call, rows);
  } else {
    place_when_counted(call, rows);
  }
  if (call.block) keep_until_done(*call.block);
  if (!call.fresh) return;
  call.fresh->rows_of_rank.assign(static_cast<std::size_t>(heap_->num_ranks()), -1);
  call.fresh->rows_of_rank[static_cast<std::size_t>(heap_->rank())] = call.shape.rows;
  call.fresh->worst = worst;
  call.fresh->dispatch = calls_;
}

}  // namespace switchyard::cuda
