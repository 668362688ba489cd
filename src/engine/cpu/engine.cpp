#include "engine/cpu/engine.hpp"

#include <fmt/format.h>

namespace switchyard::cpu {

Engine::Engine(std::shared_ptr<SymmetricHeap> const& heap, std::shared_ptr<World> world,
               EngineOptions const& options)
    : heap_(heap),
      options_(options),
      experts_(options.num_experts, heap->world()),
      control_(heap, control_layout(heap->world(), experts_.max_count())),
      signals_(heap, std::move(world), options.wait) {}

void Engine::run_call(char const* phase, std::function<void()> const& call) {
  signals_.check_usable();
  try {
    call();
  } catch (Error const&) {
    throw;  // thrown on every rank, or told to them by Signals::fail()
  } catch (std::exception const& error) {
    // Only this rank knows (no memory, a thread that cannot start): the peers would wait in vain.
    signals_.fail(SystemError(fmt::format("rank {}: {}", heap_->rank(), error.what()),
                              {.rank = heap_->rank(), .phase = phase}));
  }
}

}  // namespace switchyard::cpu
