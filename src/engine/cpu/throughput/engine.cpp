#include "engine/cpu/throughput/engine.hpp"

#include "engine/cpu/guarded_call.hpp"

namespace switchyard::cpu {

Engine::Engine(std::shared_ptr<SymmetricHeap> const& heap, std::shared_ptr<Node> node, EngineOptions const& options)
    : heap_(heap),
      options_(options),
      experts_(options.num_experts, heap->num_ranks()),
      control_(heap, control_layout(heap->num_ranks(), experts_.max_count())),
      signals_(heap, std::move(node), options.wait) {}

void Engine::run_call(char const* phase, std::function<void()> const& call) {
  signals_.check_usable();
  guarded_call(signals_, {heap_->rank(), phase}, call);
}

void Engine::clean(Counters const& agreed) noexcept {
  epoch_ = agreed.epoch;
  signals_.reset();
}

}  // namespace switchyard::cpu
