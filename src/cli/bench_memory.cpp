#include "cli/bench_memory.hpp"

#include "cli/copy_ceiling.hpp"

namespace switchyard::cli {

namespace {

std::size_t bytes_of(ConstTensorView const& view) {
  return static_cast<std::size_t>(view.numel()) * size_of(view.dtype);
}

}  // namespace

BenchMemory::BenchMemory(Buffer& buffer) : buffer_(buffer) {
  if (buffer.engine() == EngineKind::cuda) timer_.emplace();
}

ConstTensorView BenchMemory::place(ConstTensorView host) {
  if (!on_gpu() || !host.given()) return host;
  placed_.push_back(device_memory(std::max<std::size_t>(bytes_of(host), 1)));
  device_copy(placed_.back().get(), host.data, bytes_of(host));
  host.data = placed_.back().get();
  host.device = Device::cuda;
  return host;
}

void BenchMemory::write(TensorView const& to, void const* host) const {
  if (on_gpu()) return device_copy(to.data, host, bytes_of(to));
  if (to.data != host && bytes_of(to) > 0) std::memcpy(to.data, host, bytes_of(to));
}

Tensor BenchMemory::fetch(Tensor const& tensor) const {
  if (!on_gpu() || !tensor.given()) return tensor;
  auto const bytes = std::make_shared<std::vector<std::byte>>(bytes_of(tensor) + 1);
  device_copy(bytes->data(), tensor.view().data, bytes_of(tensor));
  TensorView view = tensor.view();
  view.data = bytes->data();
  view.device = Device::cpu;
  return {view, bytes};
}

Dispatched BenchMemory::fetch(Dispatched const& routed) const {
  Dispatched host = routed;
  host.x = fetch(routed.x);
  host.scales = fetch(routed.scales);
  host.topk_idx = fetch(routed.topk_idx);
  host.topk_weights = fetch(routed.topk_weights);
  host.source_token = fetch(routed.source_token);
  return host;
}

void BenchMemory::poison(Tensor const& tensor) const {
  if (!tensor.given() || tensor.view().numel() == 0) return;
  if (on_gpu()) return device_fill(tensor.view().data, 0xa5, bytes_of(tensor));
  std::memset(tensor.view().data, 0xa5, bytes_of(tensor));
}

void BenchMemory::copy_on_gpu() {
  auto const bytes = static_cast<std::size_t>(copy_bytes);
  if (!copies_) copies_ = device_memory(2 * bytes);
  auto* const base = static_cast<std::byte*>(copies_.get());
  device_copy_async(base + bytes, base, bytes, buffer_.cuda_stream());
}

}  // namespace switchyard::cli
