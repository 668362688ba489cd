// One rank's GPU memory in a test: host tensors are copied there, and results are copied back.
#pragma once

#include <cuda_runtime_api.h>

#include <cstring>
#include <vector>

#include "support/flow.hpp"
#include "support/span.hpp"

namespace switchyard::test {

inline void check_cuda(cudaError_t error, char const* what) {
  check(error == cudaSuccess, what, ": ", cudaGetErrorString(error));
}

// Memory outside of the symmetric heap. It is allocated once, because cudaMalloc may wait for kernels of ranks in
// this process.
class Arena {
 public:
  explicit Arena(std::size_t bytes) : bytes_(bytes) {
    check_cuda(cudaMalloc(&base_, bytes), "cudaMalloc");
    check_cuda(cudaMemset(base_, 0xa5, bytes), "cudaMemset");
  }
  ~Arena() { cudaFree(base_); }
  Arena(Arena const&) = delete;
  Arena& operator=(Arena const&) = delete;
  void* take(std::size_t bytes) {
    std::size_t const at = used_;
    used_ = (used_ + bytes + 255) / 256 * 256;
    check(used_ <= bytes_, "the test's arena is too small");
    return static_cast<std::byte*>(base_) + at;
  }
  void clear() { used_ = 0; }

 private:
  void* base_ = nullptr;
  std::size_t bytes_;
  std::size_t used_ = 0;
};

class DeviceRank {
 public:
  static constexpr std::size_t arena_bytes = std::size_t{96} << 20U;

  // Ranks take the machine's GPUs in turn.
  explicit DeviceRank(int rank) : arena_((choose_gpu(rank), arena_bytes)) {
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  ~DeviceRank() { cudaStreamDestroy(stream_); }
  DeviceRank(DeviceRank const&) = delete;
  DeviceRank& operator=(DeviceRank const&) = delete;

  static void choose_gpu(int rank) {
    int count = 0;
    check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    check_cuda(cudaSetDevice(rank % count), "cudaSetDevice");
  }

  [[nodiscard]] std::uintptr_t stream() const { return reinterpret_cast<std::uintptr_t>(stream_); }
  void clear() { arena_.clear(); }

  // The same tensor in GPU memory, with the same strides, `misalign` bytes off the arena's alignment.
  ConstTensorView upload(ConstTensorView view, std::size_t misalign = 0) {
    if (!view.given()) return view;
    std::size_t const bytes = span_bytes(view);
    auto* const to = static_cast<std::byte*>(arena_.take(bytes + misalign)) + misalign;
    copy(to, view.data, bytes);
    view.data = to;
    view.device = Device::cuda;
    return view;
  }

  // Writes new contents into what upload() placed. Shape and strides are the same.
  void refresh(ConstTensorView const& placed, ConstTensorView const& from) {
    if (placed.given()) copy(const_cast<void*>(placed.data), from.data, span_bytes(from));
  }

  void poison(Tensor const& tensor) {
    if (tensor.view().numel() == 0) return;
    check_cuda(cudaMemsetAsync(tensor.view().data, 0xa5, span_bytes(tensor), stream_), "cudaMemsetAsync");
    check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

  void write(Tensor const& to, void const* from) {
    copy(to.view().data, from, index(to.view().numel()) * size_of(to.dtype()));
  }

  // Writes all that the view spans, from host memory with the same strides.
  void write_span(TensorView const& to, void const* from) {
    if (to.numel() > 0) copy(to.data, from, span_bytes(to));
  }

  DispatchArgs upload(DispatchArgs args) {
    args.x = upload(args.x);
    args.scales = upload(args.scales);
    args.topk_idx = upload(args.topk_idx);
    args.topk_weights = upload(args.topk_weights);
    args.token_in_rank = upload(args.token_in_rank);
    args.cuda_stream = stream();
    return args;
  }

  // Uploads all tensors except x, which the test places itself.
  CombineArgs upload(CombineArgs args) {
    args.topk_weights = upload(args.topk_weights);
    args.row_weights = upload(args.row_weights);
    args.bias0 = upload(args.bias0);
    args.bias1 = upload(args.bias1);
    args.cuda_stream = stream();
    return args;
  }

  Tensor download(Tensor const& tensor) {
    if (!tensor.given()) return tensor;
    auto const bytes = std::make_shared<std::vector<std::byte>>(span_bytes(tensor) + 1);
    copy(bytes->data(), tensor.view().data, span_bytes(tensor));
    TensorView view = tensor.view();
    view.data = bytes->data();
    view.device = Device::cpu;
    return Tensor(view, bytes);
  }

  Dispatched download(Dispatched const& from) {
    Dispatched to = from;
    to.x = download(from.x);
    to.scales = download(from.scales);
    to.topk_idx = download(from.topk_idx);
    to.topk_weights = download(from.topk_weights);
    to.source_token = download(from.source_token);
    return to;
  }

  Layout download(Layout const& from) {
    return {.num_tokens_per_rank = download(from.num_tokens_per_rank),
            .num_tokens_per_expert = download(from.num_tokens_per_expert),
            .is_token_in_rank = download(from.is_token_in_rank),
            .num_tokens_per_node = download(from.num_tokens_per_node)};
  }

  Combined download(Combined const& from) { return {download(from.x), download(from.topk_weights)}; }

 private:
  void copy(void* to, void const* from, std::size_t bytes) {
    if (bytes > 0) check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "cudaMemcpyAsync");
    check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

  Arena arena_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace switchyard::test
