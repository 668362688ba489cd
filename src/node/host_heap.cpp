#include "node/host_heap.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.hpp"
#include "layout/control.hpp"
#include "memory/shared_segment.hpp"
#include "node/agreement.hpp"

namespace switchyard {

namespace {

constexpr std::size_t most_options = 8;
using OptionValues = std::array<std::int64_t, most_options>;

// What every rank of the node needs to map a segment, besides its descriptor.
struct Introduction {
  std::uint64_t segment_bytes = 0;
  std::uint64_t segment_id = 0;
};

// Collective. Throws the same error on every rank of the job.
void check_equal(RankGroup& job, SizeOptions const& names) {
  OptionValues mine{};
  for (std::size_t i = 0; i < names.options.size(); ++i) mine.at(i) = names.options[i].value;
  auto const all = gather(job, "options", mine);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    for (std::size_t option = 0; option < names.options.size(); ++option) {
      if (all[rank][option] == all[0][option]) continue;
      throw InvalidArgument(fmt::format("rank {}: {}::{}: expected {} as on rank 0, seen {}", rank, names.type,
                                        names.options[option].name, all[0][option], all[rank][option]),
                            {.rank = static_cast<int>(rank), .phase = "construction"});
    }
  }
}

// Says what can be done when a segment cannot be mapped: the system only says that there is no memory.
std::optional<Refusal> advised(std::optional<Refusal> refusal, std::size_t bytes, SizeOptions const& options) {
  if (!refusal || refusal->code != ErrorCode::out_of_memory) return refusal;
  refusal->text +=
      fmt::format("; it maps the segments of all ranks, {} bytes together: raise its limit (ulimit -v) or lower {}",
                  bytes, options.to_lower);
  return refusal;
}

std::shared_ptr<SharedSegment> create_segment(RankGroup& job, Node const& node, SizeOptions const& options,
                                              BufferPlan const& plan) {
  std::shared_ptr<SharedSegment> own;
  auto const refusal = refusal_of([&] {
    own = SharedSegment::create(plan.segment_bytes);
    initialise_control(own->data(), node.rank(), node.size(), own->bytes());
  });
  // Nothing is known yet of the other ranks' segments, but that they are about as large.
  agree(job, advised(refusal, plan.segment_bytes * static_cast<std::size_t>(node.size()), options));
  return own;
}

// Maps a peer's segment. Ranks that are threads of this process share one mapping, so that thread sanitizers see
// every access.
std::shared_ptr<SharedSegment> map_segment(Introduction const& peer, UniqueFd fd) {
  if (auto segment = SharedSegment::find_in_process(peer.segment_id)) return segment;
  return SharedSegment::attach(std::move(fd), peer.segment_bytes);
}

// Memory of this rank's own in the place of a segment that nobody has, so that what is written there does no harm.
std::shared_ptr<SharedSegment> stand_in(std::size_t rank, int num_ranks, std::size_t bytes) {
  auto segment = SharedSegment::create(bytes);
  initialise_control(segment->data(), static_cast<int>(rank), num_ranks, segment->bytes());
  return segment;
}

void check_segment(Segment const& segment, std::size_t rank, std::size_t num_ranks, BufferPlan const& plan) {
  require(segment.bytes() > plan.control.bytes, "segment of rank {}: expected more than {} bytes, seen {}", rank,
          plan.control.bytes, segment.bytes());
  auto const& header = *reinterpret_cast<ControlHeader const*>(segment.data());
  require(header.magic == control_magic && header.rank == rank && header.num_ranks == num_ranks &&
              header.segment_bytes == segment.bytes(),
          "segment of rank {}: expected a control block of rank {} of {}, seen one of {} of {} (magic {:#x})", rank,
          rank, num_ranks, header.rank, header.num_ranks, header.magic);
}

}  // namespace

ConnectedHeap connect_heap(RankGroup& job, Node& node, BufferOptions const& options, BufferPlan const& plan) {
  std::array<SizeOption, 6> const sizes{{{"max_tokens", options.max_tokens},
                                         {"hidden", options.hidden},
                                         {"num_experts", options.num_experts},
                                         {"top_k", options.top_k},
                                         {"errors_at_once", options.errors_at_once ? 1 : 0},
                                         {"f32_partials", options.f32_partials ? 1 : 0}}};
  return connect_heap(job, node, {"BufferOptions", sizes, "BufferOptions::heap_bytes (SWITCHYARD_HEAP_BYTES)"},
                      plan);
}

ConnectedHeap connect_heap(RankGroup& job, Node& node, SizeOptions const& options, BufferPlan const& plan) {
  check_equal(job, options);
  auto const own = create_segment(job, node, options, plan);
  auto const all = gather(node, "introduction", Introduction{own->bytes(), own->id()});
  auto descriptors = node.exchange_fd(own->fd());
  std::vector<std::shared_ptr<Segment>> segments;
  auto const refusal = refusal_of([&] {
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      // A rank may have been lost after its introduction, so its descriptor says whether it is there.
      bool const absent = !descriptors[rank];
      segments.push_back(absent ? stand_in(rank, node.size(), all[rank].segment_bytes)
                                : map_segment(all[rank], std::move(descriptors[rank])));
      check_segment(*segments.back(), rank, all.size(), plan);
    }
  });
  // Nobody writes into a peer's control block, or releases its own segment, before all have mapped all.
  std::size_t bytes = 0;
  for (Introduction const& each : all) bytes += each.segment_bytes;
  agree(job, advised(refusal, bytes, options));
  return {std::make_shared<SymmetricHeap>(std::move(segments), node.rank(), plan.control.bytes), own->id()};
}

}  // namespace switchyard
