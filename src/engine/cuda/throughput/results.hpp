// What is made of a dispatch's results on the caller's stream, for callers that want them in another form.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::cuda {

// Adds the rows received for each local expert to the caller's numbers.
struct AddReceivedArgs {
  std::int32_t const* counts = nullptr;  // [num_ranks, pitch]: the experts' counts begin in column 1
  std::int64_t pitch = 0;
  int num_ranks = 0;
  int local_experts = 0;
  void* to = nullptr;  // [local_experts] i32, or i64 if `wide`
  std::int64_t stride = 1;
  bool wide = false;
};

// Copies words [rows, columns] to columns that begin `pitch` words apart.
struct ByColumnArgs {
  std::uint32_t const* from = nullptr;
  std::int64_t strides[2]{};
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::uint32_t* to = nullptr;
  std::int64_t pitch = 0;
};

cudaError_t launch_add_received(AddReceivedArgs const& args, cudaStream_t stream);
cudaError_t launch_by_column(ByColumnArgs const& args, cudaStream_t stream);
cudaError_t load_results();

}  // namespace switchyard::cuda
