#include "plan/ring_plan.hpp"

#include <algorithm>

#include "layout/control.hpp"
#include "layout/scale_out/chunk_layout.hpp"

namespace switchyard {

namespace {

// Four chunks keep a link busy while the first is placed and its credit travels back; more gained nothing
// (bench/results/2026-11-30-nodes.md).
constexpr int usual_slots = 4;
// Rings of many neighbours are cut smaller: what a rank has of them should not push everything else out of the
// cache that it shares. Slots below a few pages are slow on every fabric, and are not made for that.
constexpr std::size_t usual_ring_bytes = std::size_t{16} << 20;
constexpr std::size_t least_usual_chunk = std::size_t{32} << 10;
// Of rows in memory of a GPU: 0.85 of the time of the chunks that processors pack
// (bench/results/2026-11-30-proxy.md).
constexpr std::size_t usual_gpu_chunk = std::size_t{1} << 20;
constexpr std::size_t usual_gpu_ring_bytes = std::size_t{64} << 20;
// Send slots are for whichever neighbour has room.
constexpr int most_usual_send_slots = 16;

}  // namespace

RingPlan plan_rings(Topology const& topology, std::size_t least_chunk, RingWish const& wish) {
  int const neighbours = std::max(1, static_cast<int>(topology.most_rail_neighbours()));
  RingPlan plan;
  plan.slots = wish.slots > 0 ? wish.slots : usual_slots;
  plan.send_slots = std::min(plan.slots * neighbours, std::max(plan.slots, most_usual_send_slots));
  auto const all = static_cast<std::size_t>(plan.slots) * static_cast<std::size_t>(neighbours) +
                   static_cast<std::size_t>(plan.send_slots);
  std::size_t const ring_bytes = wish.gpu_rows ? usual_gpu_ring_bytes : usual_ring_bytes;
  std::size_t const usual = std::clamp(ring_bytes / all / page_bytes * page_bytes, least_usual_chunk,
                                       wish.gpu_rows ? usual_gpu_chunk : scale_out::default_chunk_bytes);
  plan.chunk_bytes = align_up(std::max(wish.chunk_bytes > 0 ? wish.chunk_bytes : usual, least_chunk), page_bytes);
  return plan;
}

}  // namespace switchyard
