#include "api/device_tools.hpp"

#include "call/throughput_engine.hpp"
#include "engine/cuda/host/launch.hpp"
#include "memory/device/cuda_check.hpp"
#include "memory/device/device_segment.hpp"

namespace switchyard {

namespace {

cudaEvent_t event_of(void* value) {
  return static_cast<cudaEvent_t>(value);
}

void* new_event() {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreate(&event), "cudaEventCreate");
  return event;
}

}  // namespace

std::string why_no_gpu_memory(GpuMemoryKind kind) {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  auto const refusal = try_gpu_memory(kind, device);
  return refusal ? refusal->text : "";
}

void use_gpu_of(int rank) {
  if (!detail::why_no_cuda().empty()) return;
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  check_cuda(cudaSetDevice(rank % count), "cudaSetDevice");
}

std::shared_ptr<void> device_memory(std::size_t bytes) {
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, bytes), "cudaMalloc");
  return {memory, [](void* at) { cudaFree(at); }};
}

void device_copy(void* to, void const* from, std::size_t bytes) {
  check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "cudaMemcpy");
}

void device_fill(void* to, unsigned char value, std::size_t bytes) {
  check_cuda(cudaMemset(to, value, bytes), "cudaMemset");
  check_cuda(cudaDeviceSynchronize(), "cudaMemset");
}

void device_copy_async(void* to, void const* from, std::size_t bytes, std::uintptr_t cuda_stream) {
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(cuda_stream)), "cudaMemcpyAsync");
}

DeviceTimer::DeviceTimer() : begin_(new_event()), end_(new_event()) {}

DeviceTimer::~DeviceTimer() {
  cudaEventDestroy(event_of(begin_));
  cudaEventDestroy(event_of(end_));
}

void DeviceTimer::begin(std::uintptr_t cuda_stream) {
  check_cuda(cudaEventRecord(event_of(begin_), stream_of(cuda_stream)), "cudaEventRecord");
}

void DeviceTimer::end(std::uintptr_t cuda_stream) {
  check_cuda(cudaEventRecord(event_of(end_), stream_of(cuda_stream)), "cudaEventRecord");
}

double DeviceTimer::microseconds() const {
  float milliseconds = 0;
  check_cuda(cudaEventSynchronize(event_of(end_)), "cudaEventSynchronize");
  check_cuda(cudaEventElapsedTime(&milliseconds, event_of(begin_), event_of(end_)), "cudaEventElapsedTime");
  return static_cast<double>(milliseconds) * 1e3;
}

DeviceStream::DeviceStream() {
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  stream_ = stream;
}

DeviceStream::~DeviceStream() {
  cudaStreamDestroy(static_cast<cudaStream_t>(stream_));
}

void DeviceStream::wait() const {
  check_cuda(cudaStreamSynchronize(static_cast<cudaStream_t>(stream_)), "cudaStreamSynchronize");
}

DeviceGraph::DeviceGraph(DeviceStream const& stream, std::function<void()> const& work) : stream_(stream.handle()) {
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamBeginCapture(stream_of(stream_), cudaStreamCaptureModeThreadLocal),
             "cudaStreamBeginCapture");
  try {
    work();
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(stream_of(stream_), &graph));
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  check_cuda(cudaStreamEndCapture(stream_of(stream_), &graph), "cudaStreamEndCapture");
  cudaGraphExec_t exec = nullptr;
  cudaError_t const made = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  check_cuda(made, "cudaGraphInstantiate");
  exec_ = exec;
}

DeviceGraph::~DeviceGraph() {
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(exec_));
}

void DeviceGraph::replay() const {
  check_cuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(exec_), stream_of(stream_)), "cudaGraphLaunch");
}

DeviceStamps::DeviceStamps(int count) {
  void* memory = nullptr;
  check_cuda(cudaHostAlloc(&memory, static_cast<std::size_t>(count) * sizeof(std::uint64_t), cudaHostAllocDefault),
             "cudaHostAlloc");
  nanoseconds_ = {static_cast<std::uint64_t*>(memory), [](std::uint64_t* at) { cudaFreeHost(at); }};
  check_cuda(cuda::load_stamp(), "loading a kernel");
}

void DeviceStamps::write(int which, DeviceStream const& stream) const {
  check_cuda(cuda::launch_stamp(nanoseconds_.get() + which, stream_of(stream.handle())), "stamp");
}

double DeviceStamps::microseconds(int from, int to) const {
  return static_cast<double>(nanoseconds_[to] - nanoseconds_[from]) / 1e3;
}

}  // namespace switchyard
