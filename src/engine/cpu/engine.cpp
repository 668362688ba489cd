#include "engine/cpu/engine.hpp"

namespace switchyard::cpu {

Engine::Engine(std::shared_ptr<SymmetricHeap> heap, std::shared_ptr<World> world, EngineOptions const& options)
    : heap_(heap),
      options_(options),
      experts_(options.num_experts, heap->world()),
      control_(heap, control_layout(heap->world(), experts_.max_count())),
      signals_(heap, std::move(world), options.wait) {}

}  // namespace switchyard::cpu
