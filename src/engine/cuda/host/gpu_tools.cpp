// What programs on top need of NVIDIA GPUs besides a buffer.
#include "call/gpu_tools.hpp"

#include "engine/cuda/host/launch.hpp"
#include "memory/device/cuda_check.hpp"
#include "memory/device/device_segment.hpp"

namespace switchyard {

namespace {

class CudaStream final : public GpuStream {
 public:
  CudaStream() { check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~CudaStream() override { cudaStreamDestroy(stream_); }
  CudaStream(CudaStream const&) = delete;
  CudaStream& operator=(CudaStream const&) = delete;

  [[nodiscard]] std::uintptr_t handle() const noexcept override {
    return reinterpret_cast<std::uintptr_t>(stream_);
  }
  void wait() const override { check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t stream_ = nullptr;
};

class TimedEvent {
 public:
  TimedEvent() { check_cuda(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~TimedEvent() { cudaEventDestroy(event_); }
  TimedEvent(TimedEvent const&) = delete;
  TimedEvent& operator=(TimedEvent const&) = delete;

  void record(std::uintptr_t cuda_stream) {
    check_cuda(cudaEventRecord(event_, stream_of(cuda_stream)), "cudaEventRecord");
  }
  [[nodiscard]] double microseconds_since(TimedEvent const& begin) const {
    float milliseconds = 0;
    check_cuda(cudaEventSynchronize(event_), "cudaEventSynchronize");
    check_cuda(cudaEventElapsedTime(&milliseconds, begin.event_, event_), "cudaEventElapsedTime");
    return static_cast<double>(milliseconds) * 1e3;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaTimer final : public GpuTimer {
 public:
  void begin(std::uintptr_t cuda_stream) override { begin_.record(cuda_stream); }
  void end(std::uintptr_t cuda_stream) override { end_.record(cuda_stream); }
  [[nodiscard]] double microseconds() const override { return end_.microseconds_since(begin_); }

 private:
  TimedEvent begin_;
  TimedEvent end_;
};

// Captures what `work` queues. When that throws, the stream leaves the capture before the error goes on.
cudaGraph_t captured(cudaStream_t stream, std::function<void()> const& work) {
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  try {
    work();
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(stream, &graph));
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  return graph;
}

class CudaGraph final : public GpuGraph {
 public:
  CudaGraph(cudaStream_t stream, std::function<void()> const& work) : stream_(stream) {
    cudaGraph_t const graph = captured(stream, work);
    cudaError_t const made = cudaGraphInstantiate(&exec_, graph, 0);
    cudaGraphDestroy(graph);
    check_cuda(made, "cudaGraphInstantiate");
  }
  ~CudaGraph() override { cudaGraphExecDestroy(exec_); }
  CudaGraph(CudaGraph const&) = delete;
  CudaGraph& operator=(CudaGraph const&) = delete;

  void replay() const override { check_cuda(cudaGraphLaunch(exec_, stream_), "cudaGraphLaunch"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t exec_ = nullptr;
};

// The moments lie in pinned memory, which the host reads when the kernels that write them are done.
class CudaStamps final : public GpuStamps {
 public:
  explicit CudaStamps(int count) {
    void* memory = nullptr;
    check_cuda(
        cudaHostAlloc(&memory, static_cast<std::size_t>(count) * sizeof(std::uint64_t), cudaHostAllocDefault),
        "cudaHostAlloc");
    nanoseconds_ = {static_cast<std::uint64_t*>(memory), [](std::uint64_t* at) { cudaFreeHost(at); }};
    check_cuda(cuda::load_stamp(), "loading a kernel");
  }

  void write(int which, std::uintptr_t cuda_stream) const override {
    check_cuda(cuda::launch_stamp(nanoseconds_.get() + which, stream_of(cuda_stream)), "stamp");
  }
  [[nodiscard]] double microseconds(int from, int to) const override {
    return static_cast<double>(nanoseconds_[to] - nanoseconds_[from]) / 1e3;
  }

 private:
  std::shared_ptr<std::uint64_t[]> nanoseconds_;
};

class CudaTools final : public GpuTools {
 public:
  [[nodiscard]] int current_gpu() const noexcept override {
    int device = -1;
    if (cudaGetDevice(&device) == cudaSuccess) return device;
    static_cast<void>(cudaGetLastError());  // so that the next call does not report it again
    return -1;
  }

  void use_gpu_of(int rank) const override {
    if (!why_no_cuda().empty()) return;
    int count = 0;
    check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    check_cuda(cudaSetDevice(rank % count), "cudaSetDevice");
  }

  void wait_for_stream(int device, std::uintptr_t cuda_stream) const override {
    CurrentDevice const current(device);
    check_cuda(cudaStreamSynchronize(stream_of(cuda_stream)), "cudaStreamSynchronize");
  }

  [[nodiscard]] bool is_captured(int device, std::uintptr_t cuda_stream) const override {
    CurrentDevice const current(device);
    return is_capturing(stream_of(cuda_stream));
  }

  [[nodiscard]] std::string why_no_memory(GpuMemoryKind kind) const override {
    int device = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    auto const refusal = try_gpu_memory(kind, device);
    return refusal ? refusal->text : "";
  }

  [[nodiscard]] std::shared_ptr<void> allocate(std::size_t bytes) const override {
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, bytes), "cudaMalloc");
    return {memory, [](void* at) { cudaFree(at); }};
  }

  void copy(void* to, void const* from, std::size_t bytes) const override {
    check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "cudaMemcpy");
  }

  void fill(void* to, unsigned char value, std::size_t bytes) const override {
    check_cuda(cudaMemset(to, value, bytes), "cudaMemset");
    check_cuda(cudaDeviceSynchronize(), "cudaMemset");
  }

  void copy_async(void* to, void const* from, std::size_t bytes, std::uintptr_t cuda_stream) const override {
    check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(cuda_stream)),
               "cudaMemcpyAsync");
  }

  [[nodiscard]] std::unique_ptr<GpuStream> make_stream() const override { return std::make_unique<CudaStream>(); }
  [[nodiscard]] std::unique_ptr<GpuTimer> make_timer() const override { return std::make_unique<CudaTimer>(); }
  [[nodiscard]] std::unique_ptr<GpuGraph> capture(GpuStream const& stream,
                                                  std::function<void()> const& work) const override {
    return std::make_unique<CudaGraph>(stream_of(stream.handle()), work);
  }
  [[nodiscard]] std::unique_ptr<GpuStamps> make_stamps(int count) const override {
    return std::make_unique<CudaStamps>(count);
  }
};

}  // namespace

GpuTools const& cuda_tools() noexcept {
  static CudaTools const tools;
  return tools;
}

}  // namespace switchyard
