#include "api/engine_choice.hpp"

#include <span>

#include "base/check.hpp"
#include "base/config.hpp"
#include "call/throughput_engine.hpp"
#include "node/agreement.hpp"
#include "node/host_heap.hpp"

namespace switchyard {

namespace {

EngineKind chosen_here(EngineKind wish) {
  if (wish != EngineKind::automatic) return wish;
  std::string const setting = config_text(Setting::engine);
  if (setting == "cpu") return EngineKind::cpu;
  if (setting == "cuda") return EngineKind::cuda;
  return detail::why_no_cuda().empty() ? EngineKind::cuda : EngineKind::cpu;
}

}  // namespace

EngineKind choose_engine(Node& node, EngineWish const& wish) {
  EngineKind kind = EngineKind::cpu;
  agree(node, refusal_of([&] { kind = chosen_here(wish.engine); }));
  auto const all = node.all_gather(std::as_bytes(std::span(&kind, 1)));
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    auto const name = [](std::byte of) { return static_cast<EngineKind>(of) == EngineKind::cuda ? "cuda" : "cpu"; };
    throw InvalidArgument(fmt::format("rank {}: {}::engine: expected {} as on rank 0, seen {}", rank, wish.options,
                                      name(all[0].at(0)), name(all[rank].at(0))),
                          {.rank = static_cast<int>(rank), .phase = "construction"});
  }
  return kind;
}

}  // namespace switchyard
