#include "engine/cpu/engine.hpp"

#include <fmt/format.h>

#include <new>

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
  } catch (std::bad_alloc const&) {
    // Only this rank knows: the peers would wait in vain.
    signals_.fail(OutOfMemory(fmt::format("rank {}: no memory for the call's own tables", heap_->rank()),
                              {.rank = heap_->rank(), .phase = phase}));
  } catch (std::exception const& error) {
    signals_.fail(SystemError(fmt::format("rank {}: {}", heap_->rank(), error.what()),
                              {.rank = heap_->rank(), .phase = phase}));
  }
}

void Engine::clean(Counters const& agreed) noexcept {
  epoch_ = agreed.epoch;
  signals_.reset();
}

}  // namespace switchyard::cpu
