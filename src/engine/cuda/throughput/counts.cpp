// What a dispatch received, by source and expert: for results that are put together from several.
#include <vector>

#include "engine/cuda/throughput/engine.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

RowCounts Engine::counts_of(detail::Routing const& routing) {
  CurrentDevice const current(resources_.device);
  int const num_ranks = heap_->num_ranks();
  auto const slots = 1 + static_cast<std::size_t>(experts_.max_count());
  std::vector<std::int32_t> raw(static_cast<std::size_t>(num_ranks) * slots);
  check_cuda(cudaMemcpyAsync(raw.data(), device_handle(routing).recv_counts, raw.size() * sizeof(std::int32_t),
                             cudaMemcpyDeviceToHost, stream_.get()),
             "reading the counts of a dispatch");
  check_cuda(cudaStreamSynchronize(stream_.get()), "reading the counts of a dispatch");
  bool const flat = routing.layout == OutputLayout::flat;
  RowCounts counts{.groups = flat ? 1 : experts_.count(heap_->rank()), .sources = num_ranks};
  for (int group = 0; group < counts.groups; ++group) {
    for (int source = 0; source < num_ranks; ++source)
      counts.of.push_back(
          raw[static_cast<std::size_t>(source) * slots + static_cast<std::size_t>(flat ? 0 : 1 + group)]);
  }
  return counts;
}

}  // namespace switchyard::cuda
