// Stands in for cuda_buffer.cpp, cuda_low_latency.cpp and device_tools.cpp in a build without CUDA.
#include "api/device_tools.hpp"
#include "call/low_latency_engine.hpp"
#include "call/throughput_engine.hpp"
#include "switchyard/error.hpp"

namespace switchyard::detail {

std::shared_ptr<BufferState> make_cuda_buffer(Communicator const& /*communicator*/,
                                              BufferOptions const& /*options*/) {
  throw Unsupported("engine cuda: " + why_no_cuda());
}

std::shared_ptr<LowLatencyState> make_cuda_low_latency(Communicator const& /*communicator*/,
                                                       LowLatencyOptions const& /*options*/) {
  throw Unsupported("engine cuda: " + why_no_cuda());
}

std::string why_no_cuda() {
  return "this build has no CUDA engine (configured without nvcc or without a GPU, or with SWITCHYARD_CUDA=OFF): "
         "configure with SWITCHYARD_CUDA=ON";
}

}  // namespace switchyard::detail

namespace switchyard {

namespace {

[[noreturn]] void refuse() {
  throw Unsupported("GPU memory: " + detail::why_no_cuda());
}

}  // namespace

std::string why_no_gpu_memory(GpuMemoryKind /*kind*/) {
  refuse();
}

void use_gpu_of(int /*rank*/) {}

int current_gpu() noexcept {
  return -1;
}

void wait_for_stream(int /*device*/, std::uintptr_t /*cuda_stream*/) {
  refuse();
}

std::shared_ptr<void> device_memory(std::size_t /*bytes*/) {
  refuse();
}

void device_copy(void* /*to*/, void const* /*from*/, std::size_t /*bytes*/) {
  refuse();
}

void device_fill(void* /*to*/, unsigned char /*value*/, std::size_t /*bytes*/) {
  refuse();
}

void device_copy_async(void* /*to*/, void const* /*from*/, std::size_t /*bytes*/, std::uintptr_t /*cuda_stream*/) {
  refuse();
}

DeviceTimer::DeviceTimer() {
  refuse();
}

DeviceTimer::~DeviceTimer() = default;

void DeviceTimer::begin(std::uintptr_t /*cuda_stream*/) {}

void DeviceTimer::end(std::uintptr_t /*cuda_stream*/) {}

double DeviceTimer::microseconds() const {
  return 0;
}

DeviceStream::DeviceStream() {
  refuse();
}

DeviceStream::~DeviceStream() = default;

void DeviceStream::wait() const {}

DeviceGraph::DeviceGraph(DeviceStream const& stream, std::function<void()> const& /*work*/)
    : stream_(stream.handle()) {
  refuse();
}

DeviceGraph::~DeviceGraph() = default;

void DeviceGraph::replay() const {}

DeviceStamps::DeviceStamps(int /*count*/) {
  refuse();
}

void DeviceStamps::write(int /*which*/, DeviceStream const& /*stream*/) const {}

double DeviceStamps::microseconds(int /*from*/, int /*to*/) const {
  return 0;
}

}  // namespace switchyard
