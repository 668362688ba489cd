#include "engine/cpu/throughput/engine.hpp"

#include "engine/cpu/guarded_call.hpp"

namespace switchyard::cpu {

namespace {

std::unique_ptr<Crossing> crossing_of(std::shared_ptr<Job> const& job, NodeInJob const& node,
                                      ExpertSplit const& experts, RingPlan const& rings) {
  return node.is_alone() ? nullptr : std::make_unique<Crossing>(job, node, experts, rings);
}

}  // namespace

Engine::Engine(std::shared_ptr<SymmetricHeap> const& heap, std::shared_ptr<Job> const& job,
               EngineOptions const& options)
    : heap_(heap),
      options_(options),
      node_(job->topology(), job->topology().node_of(job->rank())),
      experts_(options.num_experts, job->size()),
      control_(heap, control_layout(heap->num_ranks(), experts_.max_count(), node_.served().most())),
      crossing_(crossing_of(job, node_, experts_, options.rings)),
      signals_(heap, job->node(), options.wait, surroundings()) {}

Surroundings Engine::surroundings() {
  if (!crossing_) return {};
  return {.idle = [this] { crossing_->turn(); },
          .on_held_up = [this](Member const& culprit) { crossing_->say_held_up(culprit); }};
}

void Engine::run_call(char const* phase, std::function<void()> const& call) {
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
void Engine::run_to_its_end(char const* phase, std::function<void()> const& call) {
  try {
    call();
  } catch (Error const&) {
    if (crossing_ && !signals_.has_failed()) crossing_->finish_refused(signals_, phase);
    throw;
  }
}

void Engine::clean(Counters const& agreed) {
  epoch_ = agreed.epoch;
  if (crossing_) crossing_->drain(agreed.epoch);
  signals_.reset();
}

}  // namespace switchyard::cpu
