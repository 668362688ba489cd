#include "engine/cuda/host/lookout.hpp"

#include <fmt/core.h>

#include <utility>

#include "engine/cuda/host/trouble.hpp"

namespace switchyard::cuda {

Lookout::Lookout(std::shared_ptr<SymmetricHeap> host_heap, std::shared_ptr<Node> node, WaitPolicy wait,
                 int max_local_experts)
    : node_(node),
      rank_(node->rank()),
      wait_(wait),
      signals_(std::move(host_heap), std::move(node), wait),
      mailbox_(max_local_experts) {}

Lookout::~Lookout() = default;

void Lookout::watch() {
  watchdog_ = std::make_unique<Watchdog>([this] { look(); });
}

Waiting Lookout::waiting() const {
  auto const timeout = std::chrono::duration_cast<std::chrono::nanoseconds>(wait_.timeout);
  return {.mailbox = mailbox_.device(), .timeout_ns = static_cast<std::uint64_t>(timeout.count())};
}

// Of the watchdog's thread.
void Lookout::look() {
  std::uint64_t lost = 0;
  for (int peer = 0; peer < node_->size(); ++peer) {
    if (node_->is_lost(peer) || signals_.has_left(peer)) lost |= std::uint64_t{1} << peer;
  }
  mailbox_.set_lost(lost);
  try {
    signals_.check_usable();
    if (mailbox_.troubled()) signals_.fail(error_of_trouble());
  } catch (Error const&) {
    mailbox_.set_aborted();
  }
}

Error Lookout::error_of_trouble() const {
  Trouble const& trouble = mailbox_.get().trouble;
  if (trouble.kind != TroubleKind::mismatch) return error_of(trouble, rank_, wait_.timeout.count());
  return InvalidArgument(
      fmt::format("rank {}: rank {} made another call during {} (layout, row or scale size, dtype, cast, coding or "
                  "weights differ): expected digest {:#x}, seen {:#x}",
                  rank_, trouble.peer, name_of(trouble.phase), trouble.expected, trouble.seen),
      {.rank = rank_, .peer = trouble.peer, .phase = name_of(trouble.phase)});
}

void Lookout::raise_trouble() {
  signals_.check_usable();  // what another rank reported tells more
  signals_.fail(error_of_trouble());
}

void Lookout::check_usable() {
  signals_.check_usable();
  if (!mailbox_.troubled()) return;
  std::lock_guard const lock(trouble_mutex_);
  if (mailbox_.troubled()) raise_trouble();
}

}  // namespace switchyard::cuda
