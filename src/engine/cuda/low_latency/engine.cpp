#include "engine/cuda/low_latency/engine.hpp"

#include <fmt/core.h>

#include <utility>

#include "base/check.hpp"
#include "base/refusal.hpp"
#include "engine/cuda/host/launch.hpp"
#include "engine/cuda/host/trouble.hpp"
#include "engine/cuda/low_latency/call_checks.hpp"
#include "engine/cuda/low_latency/launch.hpp"
#include "memory/device/stream_fence.hpp"

namespace switchyard::cuda {

namespace {

Error mismatch_of_slots(Trouble const& trouble, int rank) {
  return InvalidArgument(
      fmt::format("rank {}: rank {} made another call during {} (layout, row or scale size, dtype, cast, coding or "
                  "weights differ): expected digest {:#x}, seen {:#x}",
                  rank, trouble.peer, name_of(trouble.point), trouble.expected, trouble.seen),
      {.rank = rank, .peer = trouble.peer, .phase = name_of(trouble.point)});
}

}  // namespace

LowLatency::LowLatency(EngineResources resources, SlotSizes const& slots, bool mask_late)
    : resources_(std::move(resources)),
      heap_(*resources_.device_heap),
      slots_(slots),
      mask_late_(mask_late),
      at_(slot_layout(slots)),
      peers_(peers_of(resources_)),
      monitor_(resources_, slots.max_local_experts, {.calls_settle_it = false, .error = mismatch_of_slots}),
      release_stream_(resources_.device),
      latest_done_(resources_.device),
      release_done_(resources_.device),
      joined_(resources_.device) {
  CurrentDevice const current(resources_.device);
  load_kernels({{"low-latency dispatch", load_slot_dispatch},
                {"low-latency combine", load_slot_combine},
                {"low-latency credit", load_slot_credit},
                {"gate", load_gate}});
  for (int frame = 0; frame < slots.frames; ++frame)
    readers_done_[static_cast<std::size_t>(frame)] = std::make_unique<DeviceEvent>(resources_.device);
  clear_slots();
  monitor_.start();
}

LowLatency::~LowLatency() {
  // Kernels end by their own deadlines at the latest.
  latest_done_.wait_quietly();
  // Freeing GPU memory waits for all kernels of the context, also for those of peers (threads) that wait for this
  // rank. So they must learn before that it leaves.
  monitor_.signals().leave();
  cudaStreamSynchronize(release_stream_.get());
  monitor_.stop();
}

// Every word that ranks publish to each other begins at 0.
void LowLatency::clear_slots() {
  int const rank = heap_.rank();
  cudaStream_t const stream = release_stream_.get();
  check_cuda(cudaMemsetAsync(heap_.heap(rank), 0, at_.control_bytes, stream), "clearing the slots");
  check_cuda(cudaMemsetAsync(heap_.control(rank), 0, peers_.control.bytes, stream), "clearing the control block");
  check_cuda(cudaStreamSynchronize(stream), "clearing the slots");
}

std::byte* LowLatency::bay(int which) const noexcept {
  return heap_.heap(heap_.rank()) + at_.bay(which);
}

SlotArgs LowLatency::common() const {
  SlotArgs args{};
  args.peers = peers_;
  args.waiting = monitor_.waiting();
  args.at = at_;
  args.experts = ExpertSplit(slots_.num_experts, slots_.num_ranks);
  args.owners = ExpertOwners(args.experts, slots_.num_ranks);
  args.by_top_k = QuickDivisor(static_cast<std::uint32_t>(slots_.top_k));
  args.max_tokens = slots_.max_tokens;
  args.top_k = slots_.top_k;
  args.frames = slots_.frames;
  args.mask_late = mask_late_;
  return args;
}

// Orders the kernel behind what it must come after, and takes the frames that it gives back. launching_ is held.
void LowLatency::prepare(SlotArgs& args, cudaStream_t stream) {
  if (!args.captured) {
    if (any_call_ && stream != latest_stream_.load(std::memory_order_relaxed))
      latest_done_.make_stream_wait(stream);
    if (std::exchange(released_outside_, false)) release_done_.make_stream_wait(stream);
  }
  FrameTracker::Frames const frames = tracker_.take(args.captured);
  args.released = frames.eager;
  args.released_captured = frames.captured;
}

// Relaxed: the store pairs with the load in mark_readers(), and only the value matters there.
void LowLatency::remember(cudaStream_t stream, bool captured) {
  if (captured) return;
  latest_stream_.store(stream, std::memory_order_relaxed);
  any_call_ = true;
  latest_done_.record(stream);
}

// Results of calls outside of graphs must be given back outside of graphs, too: those that were released before,
// here, and later ones by release(). That loads replays_ after it has written to the tracker, which
// launch_release() reads after the store here. The tracker's mutex orders the two, so one of them finds the frame.
// The lock is not held during the wait below, which may be for a peer (a thread) that is about to release a result.
void LowLatency::expect_replays() {
  {
    std::lock_guard const lock(launching_);
    replays_.store(true, std::memory_order_relaxed);
    launch_release(~0U);
  }
  check_cuda(synchronize_release_stream(), "giving frames back");
}

// A call that fails on one rank only would leave ranks with different counts of calls, so it fails the buffer.
template <typename Launch>
void LowLatency::launch_or_fail(SlotArgs& args, cudaStream_t stream, Launch const& launch) {
  CurrentDevice const current(resources_.device);
  try {
    if (args.captured) expect_replays();
    std::lock_guard const lock(launching_);
    prepare(args, stream);
    check_cuda(launch(), "launching a low-latency kernel");
    remember(stream, args.captured);
  } catch (Error const& error) {
    monitor_.signals().fail(error);
  }
}

void LowLatency::launch(SlotDispatchArgs& args, Run const& run) {
  launch_or_fail(args, run.stream, [&] { return launch_slot_dispatch(args, run.blocks, run.stream); });
}

void LowLatency::launch(SlotCombineArgs& args, Run const& run) {
  launch_or_fail(args, run.stream, [&] { return launch_slot_combine(args, run.blocks, run.stream); });
}

// Records an event behind what reads the frame, for launch_release(). Returns false when there can be none.
bool LowLatency::mark_readers(int frame, std::span<std::uintptr_t const> others) {
  HarmlessToCaptures const harmless;
  CurrentDevice const current(resources_.device);
  // Relaxed: results are released on any thread, and the value alone matters. Pairs with the store in remember().
  cudaStream_t const stream = latest_stream_.load(std::memory_order_relaxed);
  if (is_capturing(stream)) return false;
  DeviceEvent& done = *readers_done_[static_cast<std::size_t>(frame)];
  done.record(stream);
  if (others.empty()) return true;
  auto const joined = reinterpret_cast<std::uintptr_t>(joined_.get());
  done.make_stream_wait(joined_.get());
  make_stream_fence(resources_.device, others)->make_stream_wait(joined);
  done.record(joined_.get());
  return true;
}

void LowLatency::release(ReleasedResult const& result) noexcept {
  bool marked = false;
  try {
    marked = !result.captured && mark_readers(result.frame, result.readers);
  } catch (std::exception const&) {
    marked = false;  // the next call outside of a graph gives the frame back; replays before it wait in vain
  }
  tracker_.release(result.frame, result.number, result.captured, marked);
  // Replays give no frames of other calls back, so this does it at once. It cannot be left to a thread: while a
  // thread copies from a GPU to memory that is not pinned, no other thread can launch anything, and what is copied
  // may come from a replay that waits for this frame. The load pairs with the store in expect_replays(); see there.
  if (!marked || !replays_.load(std::memory_order_relaxed)) return;
  try {
    std::lock_guard const lock(launching_);
    launch_release(1U << result.frame);
  } catch (std::exception const&) {
    return;  // this GPU launches nothing more, and the next call reports that
  }
}

// Gives back, outside of any call, those of `frames` that were released. launching_ is held, so that no call comes
// between what this takes and what it launches.
void LowLatency::launch_release(std::uint32_t frames) {
  HarmlessToCaptures const harmless;
  CurrentDevice const current(resources_.device);
  SlotArgs args = common();
  args.released = tracker_.take_behind_events(frames);
  if (args.released == 0) return;
  cudaStream_t const stream = release_stream_.get();
  latest_done_.make_stream_wait(stream);
  for (int frame = 0; frame < args.frames; ++frame) {
    if ((args.released >> frame & 1) != 0) readers_done_[static_cast<std::size_t>(frame)]->make_stream_wait(stream);
  }
  check_cuda(launch_slot_release(args, stream), "giving frames back");
  release_done_.record(stream);
  released_outside_ = true;  // the next call comes after it, because it may use these frames
}

cudaError_t LowLatency::synchronize_release_stream() const {
  HarmlessToCaptures const harmless;
  return cudaStreamSynchronize(release_stream_.get());
}

void LowLatency::check_alive() {
  monitor_.check_usable();
}

void LowLatency::check_usable() {
  monitor_.check_usable();
  std::int64_t const bad = monitor_.mailbox().take_bad_slot();
  if (bad < 0) return;
  auto const [token, slot] = IdPlace::of(bad);
  throw_bad_slot(token, slot, slots_);
}

void LowLatency::mask(int peer, bool masked) {
  CurrentDevice const current(resources_.device);
  auto args = with_common<SlotMaskArgs>();
  args.peer = peer;
  args.masked = masked;
  if (any_call_) latest_done_.make_stream_wait(release_stream_.get());
  check_cuda(launch_slot_mask(args, release_stream_.get()), "masking a rank");
  check_cuda(cudaStreamSynchronize(release_stream_.get()), "masking a rank");
}

void LowLatency::leave_out(int peer) {
  CurrentDevice const current(resources_.device);
  std::byte* const word =
      heap_.heap(heap_.rank()) + at_.masked + static_cast<std::size_t>(peer) * sizeof(std::uint32_t);
  std::uint32_t const yes = 1;
  check_cuda(cudaMemcpyAsync(word, &yes, sizeof yes, cudaMemcpyHostToDevice, release_stream_.get()),
             "masking a rank");
  check_cuda(cudaStreamSynchronize(release_stream_.get()), "masking a rank");
}

std::vector<bool> LowLatency::masked() {
  CurrentDevice const current(resources_.device);
  if (any_call_) latest_done_.make_stream_wait(release_stream_.get());
  std::vector<std::uint32_t> words(static_cast<std::size_t>(slots_.num_ranks));
  check_cuda(cudaMemcpyAsync(words.data(), heap_.heap(heap_.rank()) + at_.masked,
                             words.size() * sizeof(std::uint32_t), cudaMemcpyDeviceToHost, release_stream_.get()),
             "reading masks");
  check_cuda(cudaStreamSynchronize(release_stream_.get()), "reading masks");
  return {words.begin(), words.end()};
}

void LowLatency::synchronize() {
  CurrentDevice const current(resources_.device);
  if (any_call_) latest_done_.wait();
  check_usable();
}

// The kernel counts the gates itself, so that a gate in a graph counts at each replay.
void LowLatency::gate(cudaStream_t stream) {
  queue_gate(resources_, monitor_.waiting(), 0, stream);
}

void LowLatency::end_work() {
  CurrentDevice const current(resources_.device);
  {
    // Results that are released from here on find another number, so that no frame is given back while peers clear
    // their slots.
    std::lock_guard const lock(launching_);
    tracker_.forget();
  }
  // Waiting kernels end by their deadlines, or when the monitor publishes a failure to them, so it is stopped only
  // then.
  if (any_call_) latest_done_.wait();
  monitor_.stop();
  check_cuda(cudaStreamSynchronize(release_stream_.get()), "ending the work before a reset");
  static_cast<void>(monitor_.end_generation());
}

void LowLatency::clean(Counters const& /*agreed*/) {
  CurrentDevice const current(resources_.device);
  clear_slots();
  static_cast<void>(monitor_.mailbox().take_bad_slot());
  monitor_.begin_generation();
}

void LowLatency::publish_bays(std::span<int const> of_frames) {
  CurrentDevice const current(resources_.device);
  std::vector<FrameState> states(of_frames.size());
  bool any = false;
  for (std::size_t frame = 0; frame < states.size(); ++frame) {
    states[frame].given = credit_word(0, static_cast<int>(frame), of_frames[frame]);
    any = any || states[frame].given != 0;
  }
  if (!any) return;  // the words that are there say so
  check_cuda(cudaMemcpyAsync(heap_.heap(heap_.rank()) + at_.states, states.data(), states.size() * sizeof states[0],
                             cudaMemcpyHostToDevice, release_stream_.get()),
             "publishing bays");
  // Nobody is masked now. Each of these gives a peer the credits that FrameState has.
  for (int peer = 0; peer < slots_.num_ranks; ++peer) mask(peer, false);
}

void LowLatency::give_up(Error const& error) {
  if (!monitor_.is_running()) static_cast<void>(refusal_of([this] { monitor_.start(); }));
  monitor_.signals().fail(error);
}

}  // namespace switchyard::cuda
