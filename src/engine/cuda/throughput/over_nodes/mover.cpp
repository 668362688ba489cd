#include "engine/cuda/throughput/over_nodes/mover.hpp"

#include <fmt/core.h>

#include <utility>

#include "base/check.hpp"
#include "call/rows.hpp"
#include "engine/cuda/throughput/over_nodes/combine_work.hpp"
#include "engine/cuda/throughput/over_nodes/dispatch_work.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

namespace {

// What a call has launched must not outlive what it reads. By now the call is under way on all ranks, so what only
// this one has seen, such as an error of its GPU, fails the buffer.
template <typename Task, typename Step>
void guarded(Batches& batches, Task const& task, char const* phase, Step const& step) {
  try {
    step();
  } catch (Error const& error) {
    batches.abandon();
    if (task.signals.has_failed()) throw;
    task.signals.fail(
        SystemError(fmt::format("rank {}: {}", task.rank, error.what()), {.rank = task.rank, .phase = phase}));
  } catch (...) {
    batches.abandon();
    throw;
  }
}

}  // namespace

Mover::Mover(std::shared_ptr<SymmetricHeap> heap, int device, int rank)
    : heap_(std::move(heap)), device_(device), stream_(device), batches_(device, stream_.get(), rank) {}

void Mover::check_size(CombineCall const& call, int num_nodes) const {
  require(fits_into_launch(call, num_nodes, batches_.room()),
          "topk_weights: expected as many columns as a launch can sum over {} nodes, seen {}", num_nodes,
          call.out_weights.given() ? call.out_weights.size(1) : 0);
}

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
  guarded(batches_, task, "dispatch/place", [&] { DispatchWork(task, rows_, batches_).run(); });
}

void Mover::pull(PullTask const& task) {
  CurrentDevice const current(device_);
  guarded(batches_, task, "combine/pull", [&] { CombineWork(task, batches_).run(); });
}

}  // namespace switchyard::cuda
