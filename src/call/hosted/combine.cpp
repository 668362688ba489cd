// Throughput combine: each rank stages its expert outputs where need be and announces where they lie; then it pulls
// the rows of its own tokens, sums them, and closes the call.
#include <fmt/core.h>

#include <atomic>
#include <cstring>
#include <vector>

#include "base/trace.hpp"
#include "call/heap_tensors.hpp"
#include "call/hosted/call_tally.hpp"
#include "call/hosted/calls.hpp"
#include "call/hosted/row_partners.hpp"
#include "call/rows.hpp"

namespace switchyard {

namespace {

// Where in the heap peers find the tensor; nothing: they cannot read it where it lies.
std::optional<std::size_t> offset_in(SymmetricHeap const& heap, ConstTensorView const& view) {
  if (!is_contiguous(view)) return std::nullopt;
  std::size_t const bytes = static_cast<std::size_t>(view.size(0)) * row_bytes_of(view);
  if (bytes == 0) return 0;
  return heap.offset_of(view.data, bytes);
}

}  // namespace

class CombineRun {
 public:
  CombineRun(HostedCalls& engine, CombineCall& call)
      : engine_(engine),
        call_(call),
        tally_(engine.counter_),
        link_(engine.link(tally_.wait_ns(&CallCounts::combine_wait_ns))),
        epoch_(++engine.epoch_),
        crossing_(engine.crossing_.get()) {}

  void run() {
    stage_all();
    announce();
    locate();
    pull();
    // A peer that gave up may have freed and reused the rows that were just read. Then this throws, rather than
    // hand out their sum. The acquire fence keeps the reads of pull() before the loads of check_usable(); it pairs
    // with the release store in Signals::report(), which the peer makes before it reuses the rows.
    std::atomic_thread_fence(std::memory_order_acquire);
    link_.signals.check_usable();
    // Afterwards all ranks that had tokens here have read their rows.
    meet_row_partners(link_, routing(), &ControlArea::done, epoch_, "combine/close");
    if (crossing_) crossing_->finish(link_.signals, "combine/close");
    tally_.end_combine(routing(), call_.args);
  }

 private:
  [[nodiscard]] detail::Routing const& routing() const { return *call_.args.handle.routing(); }

  // Returns where peers can read the tensor, as an offset in the heap; one that lies elsewhere is copied to
  // `block`.
  std::int64_t stage(ConstTensorView const& view, std::optional<SymmetricHeap::Block> const& block) {
    if (!view.given()) return -1;
    if (!block) return static_cast<std::int64_t>(offset_in(*engine_.heap_, view).value());
    attempt(call_, [&] { engine_.mover_.stage(view, block->data, call_.workers); });
    return static_cast<std::int64_t>(block->offset);
  }

  void stage_all() {
    if (!call_.refusal && !call_.staging.taken) engine_.take_staging(call_);
    if (call_.refusal) return;
    announcement_.x_offset = stage(call_.args.x, call_.staging.x);
    announcement_.weights_offset = stage(call_.args.topk_weights, call_.staging.topk_weights);
    announcement_.row_weights_offset = stage(call_.args.row_weights, call_.staging.row_weights);
  }

  void announce() {
    TraceScope const span("combine/announce", link_.rank);
    announcement_.epoch = epoch_;
    announcement_.phase = "combine/announce";
    announcement_.refusal = call_.refusal;
    announcement_.terms = terms_of(call_);
    announcement_.trouble = crossing_ && open_between();
    if (crossing_) return crossing_->announce(link_, announcement_);
    open_call(link_, announcement_);
  }

  // Hears what ranks of other nodes were asked, and returns whether there is trouble.
  bool open_between() {
    CrossingCall const between{.epoch = epoch_,
                               .phase = "combine/open",
                               .terms = announcement_.terms,
                               .refusal = call_.refusal,
                               .ended = &ControlArea::done};
    return crossing_->pass_on(link_, between, crossing_->open(link_, between));
  }

  // Where a peer's tensor lies. The terms agree, so the peer has one if this rank has. An offset that came from
  // outside must leave room for all rows of that rank.
  std::byte const* located(int peer, ConstTensorView const& mine, std::int64_t offset) {
    if (!mine.given()) return nullptr;
    std::size_t const row_bytes = row_bytes_of(mine);
    auto const at = static_cast<std::size_t>(offset);  // -1 (none) becomes the largest of all
    std::size_t const bytes =
        static_cast<std::size_t>(routing().rows_of_rank[static_cast<std::size_t>(link_.job.rank_of(peer))]) *
        row_bytes;
    std::size_t const heap_bytes = engine_.heap_->heap_bytes(peer);
    if (at > heap_bytes || bytes > heap_bytes - at) {
      link_.signals.fail(SystemError(
          fmt::format("rank {}: announce of rank {} is broken: {} bytes at {} of {}", link_.job.rank_of(link_.rank),
                      link_.job.rank_of(peer), bytes, at, heap_bytes),
          {.rank = link_.job.rank_of(link_.rank), .peer = link_.job.rank_of(peer), .phase = "combine/announce"}));
    }
    return engine_.heap_->heap(peer) + at;
  }

  void locate() {
    CombineArgs const& args = call_.args;
    sources_.resize(static_cast<std::size_t>(link_.job.num_ranks()));
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      Announce const& from = link_.control.announce(link_.rank, peer, epoch_);
      sources_[static_cast<std::size_t>(link_.job.rank_of(peer))] = {
          .x = located(peer, args.x, from.x_offset),
          .weights = reinterpret_cast<float const*>(located(peer, args.topk_weights, from.weights_offset)),
          .row_weights = reinterpret_cast<float const*>(located(peer, args.row_weights, from.row_weights_offset))};
    }
  }

  void pull() {
    engine_.mover_.pull({.signals = link_.signals,
                         .crossing = crossing_,
                         .call = call_,
                         .sources = sources_,
                         .rank = link_.job.rank_of(link_.rank),
                         .epoch = epoch_,
                         .f32_partials = engine_.options_.f32_partials});
  }

  HostedCalls& engine_;
  CombineCall& call_;
  CallTally tally_;
  Link link_;
  std::uint64_t epoch_;
  Announcement announcement_;
  Crossing* crossing_;               // null in a job of one node
  std::vector<SourceRows> sources_;  // by rank of the job, those of this node
};

void HostedCalls::take_staging(CombineCall& call, ConstTensorView const& view,
                               std::optional<SymmetricHeap::Block>& block) {
  if (!view.given() || call.refusal || offset_in(*heap_, view)) return;
  std::size_t const bytes = static_cast<std::size_t>(view.size(0)) * row_bytes_of(view);
  block = mover_.take(bytes);
  if (!block) call.refusal = no_room_to_stage(*heap_, bytes, view.size(0));
}

void HostedCalls::take_staging(CombineCall& call) {
  take_staging(call, call.args.x, call.staging.x);
  take_staging(call, call.args.topk_weights, call.staging.topk_weights);
  take_staging(call, call.args.row_weights, call.staging.row_weights);
  call.staging.taken = true;
}

void HostedCalls::combine(CombineCall& call) {
  run_call("combine", [&] { CombineRun(*this, call).run(); });
}

}  // namespace switchyard
