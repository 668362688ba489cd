#include "cli/bench/throughput_memory.hpp"

#include "api/engine_table.hpp"
#include "cli/bench/copy_ceiling.hpp"

namespace switchyard::cli {

BenchMemory::BenchMemory(Buffer& buffer) : TensorMemory(buffer.engine() == EngineKind::cuda), buffer_(buffer) {
  if (on_gpu()) timer_ = require_gpu_tools().make_timer();
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

void BenchMemory::copy_on_gpu() {
  auto const bytes = static_cast<std::size_t>(copy_bytes);
  if (!copies_) copies_ = require_gpu_tools().allocate(2 * bytes);
  auto* const base = static_cast<std::byte*>(copies_.get());
  require_gpu_tools().copy_async(base + bytes, base, bytes, buffer_.cuda_stream());
}

}  // namespace switchyard::cli
