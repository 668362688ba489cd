#include "engine/cuda/throughput/over_nodes/mover.hpp"

#include <utility>

#include "call/rows.hpp"
#include "engine/cuda/throughput/over_nodes/combine_work.hpp"
#include "engine/cuda/throughput/over_nodes/dispatch_work.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

namespace {

// What a call has launched must not outlive what it reads.
template <typename Step>
void guarded(Batches& batches, Step const& step) {
  try {
    step();
  } catch (...) {
    batches.abandon();
    throw;
  }
}

}  // namespace

Mover::Mover(std::shared_ptr<SymmetricHeap> heap, int device, int rank)
    : heap_(std::move(heap)), device_(device), stream_(device), batches_(device, stream_.get(), rank) {}

std::optional<SymmetricHeap::Block> Mover::take(std::size_t bytes) {
  CurrentDevice const current(device_);
  if (auto block = heap_->allocate(bytes)) return block;
  return heap_->allocate_growing(bytes);
}

void Mover::stage(ConstTensorView const& view, std::byte* to, int /*workers*/) {
  CurrentDevice const current(device_);
  std::size_t const bytes = row_bytes_of(view);
  if (view.size(0) == 0 || bytes == 0) return;
  auto const pitch = static_cast<std::size_t>(row_stride_of(view));
  bool const apart = pitch >= bytes;  // rows that are the same, or overlap, go one by one
  std::int64_t const at_once = apart ? view.size(0) : 1;
  for (std::int64_t row = 0; row < view.size(0); row += at_once) {
    check_cuda(cudaMemcpy2DAsync(to + static_cast<std::size_t>(row) * bytes, bytes, row_at(view, row),
                                 apart ? pitch : bytes, bytes, static_cast<std::size_t>(at_once),
                                 cudaMemcpyDeviceToDevice, stream_.get()),
               "staging the rows of a combine");
  }
  check_cuda(cudaStreamSynchronize(stream_.get()), "staging the rows of a combine");
}

void Mover::place(PlaceTask const& task) {
  CurrentDevice const current(device_);
  if (when_placed_) std::exchange(when_placed_, {})();
  guarded(batches_, [&] { DispatchWork(task, rows_, batches_).run(); });
}

void Mover::pull(PullTask const& task) {
  CurrentDevice const current(device_);
  guarded(batches_, [&] { CombineWork(task, batches_).run(); });
}

}  // namespace switchyard::cuda
