#include "engine/cuda/low_latency/over_nodes/host_calls.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/check.hpp"
#include "engine/cuda/low_latency/call_checks.hpp"
#include "layout/routes.hpp"

namespace switchyard::cuda {

namespace {

std::size_t index(Part part) noexcept {
  return static_cast<std::size_t>(part);
}

template <typename T>
void set_id(LowLatencyDispatchArgs const& args, std::int64_t token, std::int64_t slot, T id) {
  auto* const ids = static_cast<T*>(const_cast<void*>(args.topk_idx.data));
  ids[token * args.topk_idx.size(1) + slot] = id;
}

void set_to_zero(TensorView const& numbers) {
  if (numbers.given())
    std::memset(numbers.data, 0, static_cast<std::size_t>(numbers.numel()) * size_of(numbers.dtype));
}

}  // namespace

HostCalls::HostCalls(std::shared_ptr<detail::LowLatencyEngine> host, Staging& staging)
    : host_(std::move(host)),
      staging_(staging),
      turns_(static_cast<std::size_t>(staging.sizes().slots.frames)),
      rows_(static_cast<std::size_t>(staging.sizes().slots.num_experts)) {}

HostHalf HostCalls::expect(std::shared_ptr<HostUse> const& use, bool captured) {
  if (captured) return {.use = use, .counted = false};
  std::lock_guard const lock(state_);
  ++use->pending;
  return {.use = use, .counted = true};
}

void HostCalls::fail(Error const& error) noexcept {
  std::lock_guard const lock(state_);
  if (!failure_) failure_ = error;
}

// Kernels of calls that are queued behind one that has failed write nothing into slots that peers may still read.
void HostCalls::void_results() noexcept {
  for (int frame = 0; frame < staging_.sizes().slots.frames; ++frame)
    std::atomic_ref(staging_.frame(frame).result->use).store(0, std::memory_order_relaxed);
}

// Returns whether it went well.
template <typename Half>
bool HostCalls::make(Half const& half) noexcept {
  bool failed = false;
  {
    std::lock_guard const lock(state_);
    failed = failure_.has_value();
  }
  try {
    if (!failed) {
      half();
      return true;
    }
  } catch (Error const& error) {
    fail(error);
  } catch (std::exception const& error) {  // no memory, most likely
    fail(SystemError(error.what(), {.rank = host_->communicator().rank()}));
  }
  void_results();
  return false;
}

// The host's engine uses its frames in turn, too. The result that this one takes the frame from can be combined no
// more, and a kernel has taken it from there: its copy came before this in the order of calls.
void HostCalls::take_turn(std::shared_ptr<HostUse> const& use) {
  auto& turn = turns_[static_cast<std::size_t>(dispatches_ % turns_.size())];
  std::lock_guard const lock(state_);
  // Hooks that nobody has called hold the result, too.
  if (turn) {
    turn->received = {};
    turn->receive_dispatch = {};
    turn->receive_combine = {};
  }
  use->received = {};  // of an earlier replay
  turn = use;
}

// The caller's host has not seen the ids, and the host's engine refuses a call for one that is out of range.
void HostCalls::check_ids(LowLatencyDispatchArgs const& args) {
  std::ranges::fill(rows_, 0);
  bool const by_expert = args.layout == SlotLayout::expert_major;
  for (std::int64_t token = 0; token < args.topk_idx.size(0); ++token) {
    for (std::int64_t slot = 0; slot < args.topk_idx.size(1); ++slot) {
      std::int64_t const id = topk_at(args.topk_idx, token, slot);
      bool const known = id >= -1 && id < std::ssize(rows_);
      if (known &&
          (id < 0 || !by_expert || rows_[static_cast<std::size_t>(id)]++ < staging_.sizes().slots.max_tokens))
        continue;
      if (args.topk_idx.dtype == DType::i64)
        set_id<std::int64_t>(args, token, slot, -1);
      else
        set_id<std::int32_t>(args, token, slot, -1);
      std::lock_guard const lock(state_);
      if (!bad_slot_) bad_slot_ = BadSlot{token, slot};
    }
  }
}

void HostCalls::send_dispatch(HostHalf const& half, LowLatencyDispatchArgs const& args) noexcept {
  std::lock_guard const lock(making_);
  HostUse& use = *half.use;
  make([&] {
    check_ids(args);
    set_to_zero(args.received_per_expert);
    set_to_zero(args.wait_ns_per_source);
    take_turn(half.use);
    LowLatencyReceived received = host_->send_dispatch(args, use.receive_dispatch);
    ++dispatches_;
    std::lock_guard const locked(state_);
    use.received = std::move(received);
  });
  end_half(half, false);
}

void HostCalls::throw_broken(std::string const& text) const {
  int const rank = host_->communicator().rank();
  throw_error(ErrorCode::system, fmt::format("rank {}: {}", rank, text),
              {.rank = rank, .phase = "low_latency/receive"});
}

// Counts lie in memory that peers write to, and kernels copy as much as they say.
void HostCalls::check_counts(HostUse const& use) const {
  LowLatencyReceived const& from = use.received;
  auto const* const counts = from.counts.data<std::int32_t>();
  for (std::int64_t group = 0; group < from.counts.size(0); ++group) {
    if (counts[group] < 0 || counts[group] > from.source_token.size(1))
      throw_broken(
          fmt::format("counts[{}]: expected 0..{}, seen {}", group, from.source_token.size(1), counts[group]));
    use.frame->counts[group] = counts[group];
  }
}

// Where kernels find the result. The host's stores are seen before that of CallEnd::done, which comes last.
void HostCalls::publish(HostUse const& use) {
  HostResult& to = *use.frame->result;
  LowLatencyReceived const& from = use.received;
  check_counts(use);
  to.parts[index(Part::x)] = pinned(from.x);
  to.parts[index(Part::scales)] = pinned(from.scales);
  to.parts[index(Part::source_token)] = pinned(from.source_token);
  to.parts[index(Part::counts)] = reinterpret_cast<std::byte*>(use.frame->counts);
  to.parts[index(Part::ranges)] = pinned(from.ranges);
  to.parts[index(Part::topk_idx)] = pinned(from.topk_idx);
  to.parts[index(Part::topk_weights)] = pinned(from.topk_weights);
  to.parts[index(Part::outputs)] = pinned(host_->outputs(from.handle, DType::bf16));
  to.counts = use.frame->counts;
  to.use = use.number;
}

// The engine has no result but in its first bays, since none is held there when its frame's turn comes.
std::byte* HostCalls::pinned(TensorView const& part) const {
  auto* const at = static_cast<std::byte*>(part.data);
  auto const slots = host_->slots();
  std::size_t const bytes = static_cast<std::size_t>(part.numel()) * size_of(part.dtype);
  bool const within = at >= slots.data() && bytes <= slots.size() && at <= slots.data() + (slots.size() - bytes);
  if (part.given() && !within) throw_broken("expected a result in the slots that are pinned, seen another");
  return at;
}

void HostCalls::receive_dispatch(HostHalf const& half) noexcept {
  std::lock_guard const lock(making_);
  bool const good = make([&] {
    half.use->receive_dispatch(0);
    publish(*half.use);
  });
  end_half(half, false);
  end_receive(good);
}

void HostCalls::send_combine(HostHalf const& half, LowLatencyCombineArgs args) noexcept {
  std::lock_guard const lock(making_);
  HostUse& use = *half.use;
  make([&] {
    require(
        use.frame->result->use == use.number,
        "handle: expected one of the latest {} dispatches, seen one from before a replay of a CUDA graph that has "
        "its frame",
        turns_.size());
    args.handle = use.received.handle;
    set_to_zero(args.wait_ns_per_source);
    if (!args.x.given()) args.x = host_->outputs(args.handle, args.out.dtype);
    host_->send_combine(args, use.receive_combine);
  });
  end_half(half, false);
}

void HostCalls::receive_combine(HostHalf const& half) noexcept {
  std::lock_guard const lock(making_);
  bool const good = make([&] { half.use->receive_combine(0); });
  end_half(half, true);
  end_receive(good);
}

void HostCalls::meet() noexcept {
  std::lock_guard const lock(making_);
  make([&] { host_->gate(0); });
  end_receive(true);
}

void HostCalls::settle() noexcept {
  std::lock_guard const lock(making_);
  end_receive(true);
}

// The stream that waits for `done` goes on behind this store, and what it runs then sees all stores before.
void HostCalls::end_receive(bool good) noexcept {
  CallEnd& end = staging_.end();
  end.good = good ? 1 : 0;
  std::atomic_ref(end.done).store(1, std::memory_order_release);
}

// A graph may be replayed at any time, so its results stay until their frames' next turn.
void HostCalls::end_half(HostHalf const& half, bool combined) noexcept {
  HostUse& use = *half.use;
  std::lock_guard const lock(state_);
  if (half.counted) --use.pending;
  use.combined = use.combined || combined;
  if (use.released && use.combined && use.pending == 0 && !use.captured) use.received = {};
}

void HostCalls::release(HostUse& use) noexcept {
  std::lock_guard const lock(state_);
  use.released = true;
  if (use.combined && use.pending == 0 && !use.captured) use.received = {};
}

void HostCalls::check_usable() {
  std::optional<Error> failure;
  std::optional<BadSlot> bad;
  {
    std::lock_guard const lock(state_);
    failure = failure_;
    if (!failure) bad = std::exchange(bad_slot_, std::nullopt);
  }
  if (failure)
    throw_error(failure->code(), failure->what(),
                {.rank = failure->rank(), .peer = failure->peer(), .phase = failure->phase()});
  if (bad) throw_bad_slot(bad->first, bad->second, staging_.sizes().slots);
}

void HostCalls::reset() {
  std::lock_guard const lock(making_);
  host_->reset();
  dispatches_ = 0;
  staging_.end() = {};  // a call that failed while it was queued may have left it raised
  void_results();
  std::lock_guard const locked(state_);
  for (auto& turn : turns_) {
    if (turn) turn->received = {};
    turn.reset();
  }
  failure_.reset();
  bad_slot_.reset();
}

}  // namespace switchyard::cuda
