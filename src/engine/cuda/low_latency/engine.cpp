#include "engine/cuda/low_latency/engine.hpp"

#include <utility>

#include "base/check.hpp"
#include "base/refusal.hpp"
#include "engine/cuda/host/launch.hpp"
#include "engine/cuda/host/peers_of.hpp"
#include "engine/cuda/low_latency/launch.hpp"

namespace switchyard::cuda {

namespace {

// Loading a kernel may wait for the whole context, and so for a peer's kernel that waits for us.
void load_kernels() {
  check_cuda(load_slot_dispatch(), "loading the low-latency dispatch kernel");
  check_cuda(load_slot_combine(), "loading the low-latency combine kernel");
  check_cuda(load_slot_credit(), "loading the kernels of credits");
  check_cuda(load_gate(), "loading the gate kernel");
}

}  // namespace

LowLatencyEngine::LowLatencyEngine(LowLatencyFoundation foundation, LowLatencyEngineOptions const& options)
    : heap_(std::move(foundation.device_heap)),
      node_(foundation.node),
      options_(options),
      at_(slot_layout(options.slots)),
      peers_(peers_of(*heap_, device_control_layout(options.control))),
      lookout_(std::move(foundation.host_heap), std::move(foundation.node), options.wait,
               options.slots.max_local_experts),
      aside_(options.device),
      latest_done_(options.device),
      aside_done_(options.device) {
  CurrentDevice const current(options.device);
  load_kernels();
  for (int frame = 0; frame < options.slots.frames; ++frame)
    let_go_[static_cast<std::size_t>(frame)] = std::make_unique<DeviceEvent>(options.device);
  clear_slots();
  lookout_.watch();
}

LowLatencyEngine::~LowLatencyEngine() {
  // Kernels end by their own deadlines at the latest.
  latest_done_.wait_quietly();
  // Freeing GPU memory waits for all kernels of the context, also for those of peers (threads) that wait for this
  // rank. They must hear that it leaves before.
  lookout_.signals().leave();
  cudaStreamSynchronize(aside_.get());
  lookout_.stop();
}

// Every word that ranks tell one another begins at 0.
void LowLatencyEngine::clear_slots() {
  std::byte* const own = heap_->heap(heap_->rank());
  check_cuda(cudaMemsetAsync(own, 0, at_.control_bytes, aside_.get()), "clearing the slots");
  check_cuda(cudaMemsetAsync(heap_->control(heap_->rank()), 0, peers_.control.bytes, aside_.get()),
             "clearing the control block");
  check_cuda(cudaStreamSynchronize(aside_.get()), "clearing the slots");
}

std::byte* LowLatencyEngine::frame(int which) const noexcept {
  return heap_->heap(heap_->rank()) + at_.frames + static_cast<std::size_t>(which) * at_.frame_bytes;
}

SlotArgs LowLatencyEngine::common() const {
  SlotArgs args{};
  args.peers = peers_;
  args.waiting = lookout_.waiting();
  args.at = at_;
  args.experts = ExpertSplit(options_.slots.num_experts, options_.slots.num_ranks);
  args.owners = ExpertOwners(args.experts, options_.slots.num_ranks);
  args.by_top_k = QuickDivisor(static_cast<std::uint32_t>(options_.slots.top_k));
  args.max_tokens = options_.slots.max_tokens;
  args.top_k = options_.slots.top_k;
  args.frames = options_.slots.frames;
  args.mask_late = options_.mask_late;
  args.delays = signal_delays();
  return args;
}

// What this kernel gives back, and what it comes after. With launching_ held.
void LowLatencyEngine::prepare(SlotArgs& args, cudaStream_t stream) {
  if (!args.captured) {
    if (any_call_ && stream != latest_stream_.load(std::memory_order_relaxed)) latest_done_.hold(stream);
    if (std::exchange(released_aside_, false)) aside_done_.hold(stream);
  }
  FrameBook::Frames const frames = book_.take(args.captured);
  args.released = frames.eager;
  args.released_captured = frames.captured;
}

void LowLatencyEngine::remember(cudaStream_t stream, bool captured) {
  if (captured) return;
  latest_stream_.store(stream, std::memory_order_relaxed);  // read by let_go()
  any_call_ = true;
  latest_done_.record(stream);
}

// What a call outside of the graph received must be given back outside of it: what was let go of before, here, and
// from now on by let_go(). That reads replays_ after it has written to the book, which launch_release() reads. The
// lock is not held while this waits: it may wait for a peer (a thread) that is to let go of a result.
void LowLatencyEngine::expect_replays() {
  {
    std::lock_guard const lock(launching_);
    replays_.store(true, std::memory_order_relaxed);
    launch_release(~0U);
  }
  check_cuda(synchronize_aside(), "giving frames back");
}

// A call that is lost on one rank only would leave ranks with different counts of calls.
template <typename Launch>
void LowLatencyEngine::launch_or_fail(SlotArgs& args, cudaStream_t stream, Launch const& launch) {
  CurrentDevice const current(options_.device);
  try {
    if (args.captured) expect_replays();
    std::lock_guard const lock(launching_);
    prepare(args, stream);
    check_cuda(launch(), "launching a low-latency kernel");
    remember(stream, args.captured);
  } catch (Error const& error) {
    lookout_.signals().fail(error);
  }
}

void LowLatencyEngine::launch(SlotDispatchArgs& args, Run const& run) {
  launch_or_fail(args, run.stream, [&] { return launch_slot_dispatch(args, run.blocks, run.stream); });
}

void LowLatencyEngine::launch(SlotCombineArgs& args, Run const& run) {
  launch_or_fail(args, run.stream, [&] { return launch_slot_combine(args, run.blocks, run.stream); });
}

// An event behind what reads the frame, for launch_release(). False when there can be none.
bool LowLatencyEngine::mark_readers(int frame) {
  HarmlessToCaptures const harmless;
  CurrentDevice const current(options_.device);
  cudaStream_t const stream = latest_stream_.load(std::memory_order_relaxed);  // results go on any thread
  if (is_capturing(stream)) return false;
  let_go_[static_cast<std::size_t>(frame)]->record(stream);
  return true;
}

void LowLatencyEngine::let_go(LetGo const& result) noexcept {
  bool marked = false;
  try {
    marked = !result.captured && mark_readers(result.frame);
  } catch (std::exception const&) {
    marked = false;  // the next call outside of a graph gives it back; replays before it wait in vain
  }
  book_.let_go(result.frame, result.number, result.captured, marked);
  // Replays take nothing along. At once: while a thread copies from a GPU to memory that is not pinned, other
  // threads cannot launch anything, and what is copied may come from a replay that waits for this.
  if (!marked || !replays_.load(std::memory_order_relaxed)) return;
  try {
    std::lock_guard const lock(launching_);
    launch_release(1U << result.frame);
  } catch (std::exception const&) {
    return;  // a GPU that launches nothing more: the next call says so
  }
}

// Outside of any call: those of `frames` that were let go of. With launching_ held, so that no call comes between
// what it takes and what it launches.
void LowLatencyEngine::launch_release(std::uint32_t frames) {
  HarmlessToCaptures const harmless;
  CurrentDevice const current(options_.device);
  SlotArgs args = common();
  args.released = book_.take_behind_events(frames);
  if (args.released == 0) return;
  latest_done_.hold(aside_.get());
  for (int frame = 0; frame < args.frames; ++frame) {
    if ((args.released >> frame & 1) != 0) let_go_[static_cast<std::size_t>(frame)]->hold(aside_.get());
  }
  check_cuda(launch_slot_release(args, aside_.get()), "giving frames back");
  aside_done_.record(aside_.get());
  released_aside_ = true;  // the next call comes after it: it may use these frames
}

cudaError_t LowLatencyEngine::synchronize_aside() const {
  HarmlessToCaptures const harmless;
  return cudaStreamSynchronize(aside_.get());
}

void LowLatencyEngine::check_alive() {
  lookout_.check_usable();
}

void LowLatencyEngine::check_usable() {
  lookout_.check_usable();
  std::int64_t const bad = lookout_.mailbox().take_bad_slot();
  require(bad < 0, "topk_idx[{}, {}] of an earlier call: expected -1 or 0..{}; the slot counted as not used",
          bad / 64, bad % 64, options_.slots.num_experts - 1);
}

void LowLatencyEngine::mask(int peer, bool masked) {
  CurrentDevice const current(options_.device);
  auto args = with_common<SlotMaskArgs>();
  args.peer = peer;
  args.masked = masked;
  if (any_call_) latest_done_.hold(aside_.get());
  check_cuda(launch_slot_mask(args, aside_.get()), "masking a rank");
  check_cuda(cudaStreamSynchronize(aside_.get()), "masking a rank");
}

std::vector<bool> LowLatencyEngine::masked() {
  CurrentDevice const current(options_.device);
  if (any_call_) latest_done_.hold(aside_.get());
  std::vector<std::uint32_t> words(static_cast<std::size_t>(options_.slots.num_ranks));
  check_cuda(cudaMemcpyAsync(words.data(), heap_->heap(heap_->rank()) + at_.masked,
                             words.size() * sizeof(std::uint32_t), cudaMemcpyDeviceToHost, aside_.get()),
             "reading masks");
  check_cuda(cudaStreamSynchronize(aside_.get()), "reading masks");
  return {words.begin(), words.end()};
}

void LowLatencyEngine::synchronize() {
  CurrentDevice const current(options_.device);
  if (any_call_) latest_done_.wait();
  check_usable();
}

void LowLatencyEngine::gate(cudaStream_t stream) {
  CurrentDevice const current(options_.device);
  // Longer than a host takes to queue a call, with all ranks at it.
  constexpr std::chrono::nanoseconds hold = std::chrono::microseconds{150};
  check_cuda(launch_gate({.peers = peers_,
                          .waiting = lookout_.waiting(),
                          .round = 0,
                          .hold_ns = static_cast<std::uint64_t>(hold.count()),
                          .one_clock = options_.ranks_per_gpu == heap_->num_ranks()},
                         stream),
             "launching the gate kernel");
}

void LowLatencyEngine::end_work() {
  CurrentDevice const current(options_.device);
  {
    // Results that go from here on find another number, so that nothing is given back while peers clear their
    // slots.
    std::lock_guard const lock(launching_);
    book_.forget();
  }
  // Waiting kernels end by their deadlines, or when the watchdog tells them of a failure; it goes only then.
  if (any_call_) latest_done_.wait();
  lookout_.stop();
  check_cuda(cudaStreamSynchronize(aside_.get()), "ending the work before a reset");
  try {
    lookout_.check_usable();  // what kernels reported is told to the peers now or never
  } catch (Error const&) {
    lookout_.mailbox().clear_trouble();
  }
}

void LowLatencyEngine::clean(Counters const& /*agreed*/) {
  CurrentDevice const current(options_.device);
  clear_slots();
  static_cast<void>(lookout_.mailbox().take_bad_slot());
  lookout_.mailbox().clear_aborted();
  lookout_.signals().reset();
  lookout_.watch();
}

void LowLatencyEngine::give_up(Error const& error) {
  if (!lookout_.watches()) static_cast<void>(refusal_of([this] { lookout_.watch(); }));
  lookout_.signals().fail(error);
}

}  // namespace switchyard::cuda
