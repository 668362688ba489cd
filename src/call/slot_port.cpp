#include "call/slot_port.hpp"

#include <algorithm>

#include "base/config.hpp"
#include "layout/control.hpp"
#include "layout/scale_out/combine_chunk.hpp"
#include "layout/scale_out/slot_chunk.hpp"

namespace switchyard {

namespace {

// Small enough that the first rows are placed while the others travel.
constexpr std::size_t usual_chunk = std::size_t{64} << 10;
// Rings of many neighbours are cut smaller; what has no room in one is kept in memory until it has.
constexpr std::size_t usual_ring_bytes = std::size_t{64} << 20;
constexpr int least_slots = 4;
constexpr std::size_t most_slots = 512;

scale_out::DispatchTerms most_terms(SlotSizes const& sizes) {
  return {.layout = OutputLayout::expanded,
          .top_k = sizes.top_k,
          .weights = true,
          .row_bytes = std::max(sizes.row_bytes, sizes.output_bytes),
          .scale_bytes = sizes.scale_bytes,
          .max_tokens = sizes.max_tokens};
}

}  // namespace

// A neighbour that is gone keeps what was written to it, so each has send slots of its own.
scale_out::PortSizes slot_port_sizes(LowLatencyOptions const& options, SlotSizes const& sizes,
                                     Topology const& topology) {
  ExpertSplit const experts(options.num_experts, topology.num_ranks());
  scale_out::DispatchTerms const terms = most_terms(sizes);
  std::size_t least = 0;
  for (scale_out::NodeExperts const& there : scale_out::experts_by_node(topology, experts))
    least = std::max(least, scale_out::least_slot_chunk(terms, there));
  auto const wish = static_cast<std::size_t>(config_number(Setting::chunk_bytes));
  std::size_t const chunk = align_up(std::max(wish > 0 ? wish : usual_chunk, least), page_bytes);
  std::size_t const neighbours = std::max<std::size_t>(1, topology.most_rail_neighbours());
  // A call's tokens, and as many again for what else is under way: weights, sums, a second call.
  std::size_t const token = terms.row_bytes + terms.scale_bytes + 16 + static_cast<std::size_t>(terms.top_k) * 6;
  std::size_t const tokens_a_chunk = std::max<std::size_t>(1, (chunk - least) / token + 1);
  std::size_t const of_a_call = (static_cast<std::size_t>(sizes.max_tokens) + tokens_a_chunk - 1) / tokens_a_chunk;
  std::size_t const room = usual_ring_bytes / (2 * neighbours * chunk);
  auto const asked = static_cast<int>(config_number(Setting::chunk_slots));
  int const slots =
      asked > 0 ? asked : std::max(least_slots, static_cast<int>(std::min({2 * of_a_call + 2, room, most_slots})));
  return {.letter_bytes = cache_line,
          .slot_bytes = chunk,
          .slots = slots + 2,  // one for words to who is masked, one for a last chunk
          .send_slots = (slots + 2) * static_cast<int>(neighbours)};
}

}  // namespace switchyard
