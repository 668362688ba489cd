#include "cli/bench/memory.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "api/engine_table.hpp"
#include "base/config.hpp"

namespace switchyard::cli {

std::size_t bytes_of(ConstTensorView const& view) {
  return static_cast<std::size_t>(view.numel()) * size_of(view.dtype);
}

ConstTensorView TensorMemory::place(ConstTensorView host) {
  if (!on_gpu_ || !host.given()) return host;
  placed_.push_back(require_gpu_tools().allocate(std::max<std::size_t>(bytes_of(host), 1)));
  require_gpu_tools().copy(placed_.back().get(), host.data, bytes_of(host));
  host.data = placed_.back().get();
  host.device = Device::cuda;
  return host;
}

Tensor TensorMemory::allocate(DType dtype, std::initializer_list<std::int64_t> shape) const {
  TensorView view(nullptr, dtype, shape);
  std::size_t const bytes = std::max<std::size_t>(bytes_of(view), 1);
  std::shared_ptr<void> const owner =
      on_gpu_ ? require_gpu_tools().allocate(bytes) : std::shared_ptr<void>(std::malloc(bytes), std::free);
  if (owner == nullptr) throw std::bad_alloc();
  view.data = owner.get();
  view.device = on_gpu_ ? Device::cuda : Device::cpu;
  return {view, owner};
}

void TensorMemory::copy(void* to, void const* from, std::size_t bytes) const {
  if (to == from || bytes == 0) return;
  if (on_gpu_) return require_gpu_tools().copy(to, from, bytes);
  std::memcpy(to, from, bytes);
}

void TensorMemory::fill(void* to, unsigned char value, std::size_t bytes) const {
  if (bytes == 0) return;
  if (on_gpu_) return require_gpu_tools().fill(to, value, bytes);
  std::memset(to, value, bytes);
}

Tensor TensorMemory::fetch(Tensor const& tensor) const {
  if (!on_gpu_ || !tensor.given()) return tensor;
  auto const bytes = std::make_shared<std::vector<std::byte>>(bytes_of(tensor) + 1);
  require_gpu_tools().copy(bytes->data(), tensor.view().data, bytes_of(tensor));
  TensorView view = tensor.view();
  view.data = bytes->data();
  view.device = Device::cpu;
  return {view, bytes};
}

void TensorMemory::poison(Tensor const& tensor) const {
  if (tensor.given()) fill(tensor.view().data, 0xa5, bytes_of(tensor));
}

void take_gpu(EngineKind engine, int local_rank) {
  bool const by_setting = engine == EngineKind::automatic && config_text(Setting::engine) != "cpu";
  GpuTools const* const gpus = gpu_tools();
  if (gpus != nullptr && (by_setting || engine == EngineKind::cuda)) gpus->use_gpu_of(local_rank);
}

}  // namespace switchyard::cli
