// Moves rows by threads of this process, in memory of the host.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

#include "call/hosted/row_mover.hpp"
#include "engine/cpu/worker_pool.hpp"

namespace switchyard::cpu {

class Mover final : public RowMover {
 public:
  explicit Mover(std::shared_ptr<SymmetricHeap> heap) : heap_(std::move(heap)) {}

  [[nodiscard]] std::optional<SymmetricHeap::Block> take(std::size_t bytes) override {
    return heap_->allocate(bytes);
  }
  void stage(ConstTensorView const& view, std::byte* to, int workers) override;
  void place(PlaceTask const& task) override;
  void pull(PullTask const& task) override;

 private:
  std::shared_ptr<SymmetricHeap> heap_;
  WorkerPool pool_;
};

}  // namespace switchyard::cpu
