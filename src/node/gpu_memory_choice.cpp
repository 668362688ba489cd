#include "node/gpu_memory_choice.hpp"

#include <span>
#include <string>

#include "base/check.hpp"
#include "base/config.hpp"
#include "base/log.hpp"
#include "node/agreement.hpp"

namespace switchyard {

namespace {

// Returns why this rank cannot have the kind; empty: it can.
std::string own_objection(GpuMemoryKind kind, std::string const& wanted, TryGpuMemory const& try_kind) {
  if (wanted != "auto" && wanted != name_of(kind))
    return fmt::format("{}={}", info_of(Setting::gpu_memory).variable, wanted);
  auto const refusal = try_kind(kind);
  // That memory has run out says nothing about the kind. Making the segment will report it for what it is.
  if (!refusal || refusal->code == ErrorCode::out_of_memory) return "";
  return refusal->text;
}

// Returns the first rank that objects, and why; empty when none does. The result is the same on every rank.
std::string first_objection(RankGroup& ranks, std::string const& mine) {
  auto const all = ranks.all_gather(std::as_bytes(std::span(mine)));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].empty()) continue;
    std::string const text(reinterpret_cast<char const*>(all[rank].data()), all[rank].size());
    return fmt::format("rank {}: {}", rank, text);
  }
  return "";
}

}  // namespace

GpuMemoryKind choose_gpu_memory(RankGroup& ranks, TryGpuMemory const& try_kind) {
  std::string wanted;
  agree(ranks, refusal_of([&] { wanted = config_text(Setting::gpu_memory); }));
  std::string objections;
  for (GpuMemoryKind const kind : gpu_memory_kinds) {
    std::string const objection = first_objection(ranks, own_objection(kind, wanted, try_kind));
    if (objection.empty()) {
      logger().debug("rank {}: GPU memory of kind {}", ranks.rank(), name_of(kind));
      return kind;
    }
    objections += fmt::format("; {}: {}", name_of(kind), objection);
  }
  throw Unsupported("GPU memory: no kind can be shared by all ranks" + objections,
                    {.rank = ranks.rank(), .phase = "construction"});
}

}  // namespace switchyard
