// Moves rows of calls over nodes by kernels, and by the copy engines.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>

#include "call/hosted/row_mover.hpp"
#include "engine/cuda/host/device_event.hpp"
#include "engine/cuda/throughput/over_nodes/batches.hpp"
#include "engine/cuda/throughput/over_nodes/travelling.hpp"

namespace switchyard::cuda {

class Mover final : public RowMover {
 public:
  // `rank` of the job, for errors.
  Mover(std::shared_ptr<SymmetricHeap> heap, int device, int rank);

  // The rows of the next dispatch.
  void travel(TravellingRows const& rows) { rows_ = rows; }
  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_.get(); }
  // Throws InvalidArgument when no launch takes what a token of the combine may need in a job of so many nodes.
  void check_size(CombineCall const& call, int num_nodes) const;

  [[nodiscard]] std::optional<SymmetricHeap::Block> take(std::size_t bytes) override;
  void stage(ConstTensorView const& view, std::byte* to, int workers) override;
  void place(PlaceTask const& task) override;
  void pull(PullTask const& task) override;

 private:
  std::shared_ptr<SymmetricHeap> heap_;
  int device_;
  DeviceStream stream_;
  Batches batches_;
  TravellingRows rows_{};
};

}  // namespace switchyard::cuda
