#include "engine/cuda/host/gpu_checks.hpp"

#include "base/check.hpp"
#include "call/gpu_tools.hpp"
#include "memory/device/cuda_check.hpp"
#include "node/agreement.hpp"

namespace switchyard {

namespace {

constexpr int oldest_major = 8;

// A segment has a heap, so this one gets the smallest.
BufferPlan without_heap(BufferPlan const& plan) {
  return with_heap(plan, page_bytes);
}

}  // namespace

int choose_device(RankGroup& job, int wanted) {
  int device = -1;
  agree(job, refusal_of([&] {
          std::string const why = why_no_cuda();
          if (!why.empty()) throw Unsupported("engine cuda: " + why);
          int count = 0;
          check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
          device = wanted;
          if (device < 0) check_cuda(cudaGetDevice(&device), "cudaGetDevice");
          require(device < count, "device: expected 0..{}, seen {}", count - 1, device);
        }));
  return device;
}

ConnectedHeap connect_host_heap(RankGroup& job, Node& node, SizeOptions const& options, BufferPlan const& plan) {
  return connect_heap(job, node, options, without_heap(plan));
}

ConnectedHeap connect_host_heap(RankGroup& job, Node& node, BufferOptions const& options, BufferPlan const& plan) {
  return connect_heap(job, node, options, without_heap(plan));
}

namespace {

void check_one_memory(char const* name, ConstTensorView const& view, int device) {
  if (!view.given() || view.numel() == 0) return;
  cudaPointerAttributes attributes{};
  check_cuda(cudaPointerGetAttributes(&attributes, view.data), "cudaPointerGetAttributes");
  bool const managed = attributes.type == cudaMemoryTypeManaged;
  require(managed || attributes.type == cudaMemoryTypeDevice,
          "{}: expected memory of a GPU, seen memory of the host", name);
  require(managed || attributes.device == device, "{}: expected memory of GPU {}, seen GPU {}", name, device,
          attributes.device);
}

}  // namespace

void check_memory(int device, std::initializer_list<NamedView> views) {
  for (auto const& [name, view] : views) check_one_memory(name, view, device);
}

void check_sms(int num_sms, SmShare const& share) {
  require(num_sms >= 0 && num_sms <= share.most,
          "num_sms: expected 0..{} (what {} ranks that share the GPU have each), seen {}", share.most,
          share.ranks_per_gpu, num_sms);
}

int multiprocessors_of(int device) {
  int count = 0;
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "multiprocessors");
  return count;
}

std::string why_no_cuda() {
  int count = 0;
  cudaError_t const error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return fmt::format("no usable GPU: {}", cudaGetErrorString(error));
  }
  int major = 0;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess || major < oldest_major)
    return fmt::format("GPU of compute capability {}; {}.0 is the oldest that works", major, oldest_major);
  return "";
}

}  // namespace switchyard
