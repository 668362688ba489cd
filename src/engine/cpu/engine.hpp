// Dispatch and combine by direct placement, on CPU memory. Arguments arrive checked; see src/api/.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "control/announce.hpp"
#include "control/control_area.hpp"
#include "control/signals.hpp"
#include "engine/cpu/worker_pool.hpp"
#include "layout/routing.hpp"
#include "memory/symmetric_heap.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::cpu {

struct EngineOptions {
  int num_experts = 0;
  std::int64_t max_tokens = 0;
  WaitPolicy wait;
};

// What api hands over for one dispatch. `refusal`: the arguments were found wrong, or the block could not be had;
// the call then only tells the peers. `fresh` is null in a cached dispatch, whose routing is complete; otherwise
// it is `routing`, with the sending side filled in and its rows not yet final.
struct DispatchCall {
  DispatchArgs args;
  std::optional<Refusal> refusal{};
  std::shared_ptr<detail::Routing> fresh{};
  std::shared_ptr<detail::Routing const> routing{};
  ReceiveShape shape{};                         // rows: of the worst case, or unknown yet
  std::optional<SymmetricHeap::Block> block{};  // given beforehand in worst-case mode
  int workers = 1;
};

struct CombineCall {
  CombineArgs args;
  std::optional<Refusal> refusal{};
  TensorView out{};          // [N, H]
  TensorView out_weights{};  // [N, K] f32, or not given
  int workers = 1;
};

class Engine {
 public:
  Engine(std::shared_ptr<SymmetricHeap> const& heap, std::shared_ptr<World> world, EngineOptions const& options);

  // Fill in the call's results; throw on every rank alike, or fail the buffer.
  void dispatch(DispatchCall& call);
  void combine(CombineCall& call);

  void check_usable() const { signals_.check_usable(); }

 private:
  friend class DispatchRun;
  friend class CombineRun;
  void run_call(char const* phase, std::function<void()> const& call);
  [[nodiscard]] Link link() { return {control_, signals_, heap_->rank(), heap_->world()}; }

  std::shared_ptr<SymmetricHeap> heap_;
  EngineOptions options_;
  ExpertSplit experts_;
  ControlArea control_;
  Signals signals_;
  WorkerPool pool_;
  std::uint64_t epoch_ = 0;  // of the last call; one call at a time (the buffer's stream)
};

}  // namespace switchyard::cpu
