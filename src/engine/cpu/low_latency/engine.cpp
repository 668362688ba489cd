#include "engine/cpu/low_latency/engine.hpp"

#include <fmt/core.h>

#include "base/check.hpp"
#include "engine/cpu/low_latency/over_nodes.hpp"

namespace switchyard::cpu {

namespace {

std::shared_ptr<NodeInJob const> node_in(Job const& job) {
  return std::make_shared<NodeInJob const>(job.topology(), job.topology().node_of(job.rank()));
}

}  // namespace

LowLatency::LowLatency(std::shared_ptr<SymmetricHeap> const& heap, std::shared_ptr<Job> const& job,
                       LowLatencySetup const& setup)
    : slots_(heap, node_in(*job), setup.sizes),
      credits_(std::make_shared<Credits>(slots_)),
      over_nodes_(slots_.node().is_alone() ? nullptr : std::make_unique<OverNodes>(*this, job, setup)),
      signals_(heap, job->node(), setup.wait, surroundings(job)),
      mask_late_peers_(setup.mask_late_peers),
      routed_(slots_.experts(), setup.sizes.num_ranks, setup.sizes.max_tokens, setup.sizes.top_k) {
  SlotSizes const& sizes = setup.sizes;
  for (int frame = 0; frame < sizes.frames; ++frame) {
    frames_.push_back({.bays = std::vector<int>(static_cast<std::size_t>(sizes.num_ranks), frame),
                       .routes = SlotRoutes(slots_.experts(), sizes.num_ranks, sizes.max_tokens, sizes.top_k)});
  }
  for (int const peer : slots_.local_ranks()) {
    std::size_t const bytes = heap->heap_bytes(slots_.local_of(peer));
    if (bytes >= slots_.at().bytes) continue;
    throw SystemError(fmt::format("slots of rank {}: expected {} bytes, seen {}", peer, slots_.at().bytes, bytes));
  }
}

LowLatency::~LowLatency() = default;

FrameUse LowLatency::next_use() const {
  auto const frame = static_cast<std::size_t>(dispatches_ % frames_.size());
  return {
      .frame = static_cast<int>(frame), .epoch = frames_[frame].epoch + 1, .generation = credits_->generation()};
}

bool LowLatency::is_at_rest(int frame) const noexcept {
  Frame const& latest = frames_[static_cast<std::size_t>(frame)];
  return latest.received && latest.combine_received;
}

void LowLatency::mask(int peer, bool masked) {
  credits_->mask(peer, masked);
  if (over_nodes_ && !masked) over_nodes_->unmask(peer);
}

std::vector<bool> LowLatency::masked() {
  std::vector<bool> result;
  for (int peer = 0; peer < slots_.num_ranks(); ++peer) {
    FrameFlag& credit = slots_.credits(slots_.rank(), 0)[peer];
    // Acquire: pairs with the release store in Credits::set_credit().
    if (epoch_of(credit).load(std::memory_order_acquire) == credit_revoked) mask(peer, true);
    result.push_back(masked(peer));
  }
  return result;
}

void LowLatency::clean(Counters const& /*agreed*/) {
  for (Frame& frame : frames_) {
    frame.epoch = 0;
    frame.received = true;
    frame.combines = 0;
    frame.combine_received = true;
  }
  dispatches_ = 0;
  credits_->clear();
  if (over_nodes_) over_nodes_->clean();
  signals_.reset();
}

void LowLatency::fail_broken(char const* phase, int peer, char const* what, std::int64_t seen) {
  signals_.fail(
      SystemError(fmt::format("rank {}: what rank {} wrote is broken: {} {}", slots_.rank(), peer, what, seen),
                  {.rank = slots_.rank(), .peer = peer, .phase = phase}));
}

void LowLatency::check_digests(FlagWait const& wait, std::uint64_t expected, char const* options) {
  for (int peer = 0; peer < slots_.num_ranks(); ++peer) {
    if (masked(peer) || (wait.within_node && !slots_.is_local(peer))) continue;
    if (load_word(wait.flags[peer].digest) == expected) continue;
    signals_.fail(
        InvalidArgument(fmt::format("rank {}: {}: expected the same {} on all ranks, seen others on rank {}", peer,
                                    wait.phase, options, slots_.rank()),
                        {.rank = peer, .peer = slots_.rank(), .phase = wait.phase}));
  }
}

WireCount LowLatency::wire_count() const {
  return over_nodes_ ? over_nodes_->sent() : WireCount{};
}

}  // namespace switchyard::cpu
