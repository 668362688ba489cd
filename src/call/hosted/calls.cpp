#include "call/hosted/calls.hpp"

#include <utility>

#include "call/hosted/guarded_call.hpp"

namespace switchyard {

namespace {

std::unique_ptr<Crossing> crossing_of(std::shared_ptr<Job> const& job, NodeInJob const& node,
                                      ExpertSplit const& experts, HostedOptions const& options) {
  return node.is_alone() ? nullptr : std::make_unique<Crossing>(job, node, experts, options.rings, options.pin);
}

}  // namespace

HostedCalls::HostedCalls(HostedHeaps heaps, std::shared_ptr<Job> const& job, RowMover& mover,
                         HostedOptions const& options)
    : heap_(std::move(heaps.rows)),
      mover_(mover),
      options_(options),
      node_(job->topology(), job->topology().node_of(job->rank())),
      experts_(options.num_experts, job->size()),
      control_(heaps.control, control_layout(heap_->num_ranks(), experts_.max_count(), node_.served().most())),
      crossing_(crossing_of(job, node_, experts_, options)),
      signals_(heaps.control, job->node(), options.wait, surroundings(job)),
      counter_(job->size(), experts_.count(job->rank())) {}

Surroundings HostedCalls::surroundings(std::shared_ptr<Job> const& job) {
  if (!crossing_) return {};
  return {.idle = [this] { crossing_->turn(); },
          .on_held_up = [this](Member const& culprit) { crossing_->say_held_up(culprit); },
          .silence_text = [job](int rank) { return job->silence_text(rank); }};
}

void HostedCalls::run_call(char const* phase, std::function<void()> const& call) {
  try {
    signals_.check_usable();  // what another rank of this node has found between calls other nodes learn of here
    guarded_call(signals_, {node_.rank_of(heap_->rank()), phase}, [&] { run_to_its_end(phase, call); });
  } catch (Error const&) {
    // What all ranks throw alike leaves the buffer usable.
    if (auto const failure = crossing_ ? signals_.failure() : std::nullopt) crossing_->say_failed(*failure);
    throw;
  }
}

// What all ranks throw alike they have learnt from letters, so those of this rank must leave before it does.
void HostedCalls::run_to_its_end(char const* phase, std::function<void()> const& call) {
  try {
    call();
  } catch (Error const&) {
    if (crossing_ && !signals_.has_failed()) crossing_->finish_refused(signals_, phase);
    throw;
  }
}

void HostedCalls::clean(Counters const& agreed) {
  epoch_ = agreed.epoch;
  if (crossing_) crossing_->drain(agreed.epoch);
  signals_.reset();
}

}  // namespace switchyard
