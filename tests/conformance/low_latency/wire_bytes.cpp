// What a call of the low-latency mode puts on the wire, as the transport counts it, against what it must: a row for
// each token and node that the token goes to. A job of one node puts nothing there.
#include "support/low_latency_trip.hpp"
#include "support/played_nodes.hpp"
#include "support/wire_rows.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::test {
namespace {

struct SlotWire {
  char const* name;
  SlotCase the;
  std::int64_t row;  // bytes, with scales
  std::int64_t sum;
  double most_beside;  // of the bytes of rows, and of sums
};

SlotCase wire_case(SlotLayout layout, std::int64_t hidden) {
  return {.ranks = 8,
          .tokens = 16,
          .counts = Tokens::equal,
          .hidden = hidden,
          .experts = 64,
          .top_k = 8,
          .layout = layout};
}

// FP8 on the way out, LogFMT on the way back: what slow links are given.
SlotCase coded_case() {
  SlotCase c = wire_case(SlotLayout::expert_major, 7168);
  c.cast = SendCast::fp8;
  c.coding = CombineCoding::logfmt10;
  c.zero_copy = false;
  c.tokens = 8;  // the reference's LogFMT is slow
  return c;
}

class LowLatencyWireBytes : public LowLatencyTest, public testing::WithParamInterface<SlotWire> {};

// Rows that a rank sends to other nodes, and sums that it returns there.
struct WireRows {
  std::int64_t out = 0;
  std::int64_t back = 0;
};
WireRows wire_rows(SlotProblem const& p, int rank) {
  auto const nodes = played_nodes(p.the.ranks);
  WireRows rows;
  if (nodes.empty()) return rows;
  int const own = nodes[index(rank)];
  for (int node = 0; node <= nodes.back(); ++node)
    if (node != own) rows.out += rows_to_node(p, terms_of(p.the), rank, node);
  for (int source = 0; source < p.the.ranks; ++source)
    if (nodes[index(source)] != own && played_rail_peer(nodes, source, own) == rank)
      rows.back += rows_to_node(p, terms_of(p.the), source, own);
  return rows;
}

TEST_P(LowLatencyWireBytes, AreRowsAndLittleElse) {
  SlotWire const& wire = GetParam();
  SlotProblem const p = make_slot_problem(wire.the);
  run_slot_buffers(wire.the, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    slot_round_trip(p, rank, buffer);
    WireCount const before = wire_count(buffer);
    SlotTrip trip(p, rank, buffer);
    trip.dispatch(true);
    WireCount const between = wire_count(buffer);
    trip.check_received();
    trip.combine(true);
    WireCount const after = wire_count(buffer);
    trip.check_combined();
    trip.release();
    WireRows const rows = wire_rows(p, rank.rank());
    check_wire_bytes("dispatch", between.bytes - before.bytes, rows.out * wire.row, wire.most_beside);
    check_wire_bytes("combine", after.bytes - between.bytes, rows.back * wire.sum, wire.most_beside);
    check_equal(after.writes > 0, !played_nodes(p.the.ranks).empty(), "writes to other nodes");
  });
}

// Chunks are of 64 KiB, and one of expert_major has 4 bytes for each expert of the node, beside 40 to 60 for each
// row.
INSTANTIATE_TEST_SUITE_P(
    Rows, LowLatencyWireBytes,
    testing::Values(SlotWire{"of_14336_bytes", wire_case(SlotLayout::expert_major, 7168), 14336, 14336, 0.01},
                    SlotWire{"of_14336_bytes_by_rank", wire_case(SlotLayout::rank_major, 7168), 14336, 14336, 0.01},
                    SlotWire{"of_2048_bytes", wire_case(SlotLayout::expert_major, 1024), 2048, 2048, 0.04},
                    SlotWire{"coded", coded_case(), 7168 + 224, 9408, 0.015}),
    [](auto const& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace switchyard::test
