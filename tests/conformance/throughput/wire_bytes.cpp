// What a call over nodes puts on the wire, as the transport counts it, against what it must: a row for each token
// and node that the token goes to.
#include <gtest/gtest.h>

#include "support/flow.hpp"
#include "support/wire_rows.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::test {
namespace {

struct Wire {
  char const* name;
  std::int64_t hidden;  // of bf16
  double most_beside;   // of the bytes of rows
};

class WireBytes : public testing::TestWithParam<Wire> {};

constexpr std::size_t least_large = std::size_t{256} << 10;

std::uint64_t in_large_writes(WireCount const& count) {
  std::uint64_t bytes = 0;
  for (std::size_t size = 0; size < count.bytes_by_size.size(); ++size)
    if (std::size_t{1} << size >= least_large) bytes += count.bytes_by_size[size];
  return bytes;
}

TEST_P(WireBytes, AreRowsAndLittleElse) {
  Wire const wire = GetParam();
  Problem const p = make_problem({.ranks = 8,
                                  .nodes = {0, 0, 0, 0, 1, 1, 1, 1},
                                  .tokens = 128,
                                  .counts = Tokens::equal,
                                  .hidden = wire.hidden,
                                  .experts = 256,
                                  .top_k = 8});
  run_ranks(p.the, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p));
    round_trip(p, buffer);  // checks every byte
    WireCount const before = wire_count(buffer);
    int const rank = communicator.rank();
    RankInputs const inputs(p, rank);
    Dispatched const routed = buffer.dispatch(inputs.args());
    WireCount const between = wire_count(buffer);
    Tensor const out = buffer.allocate(DType::bf16, {p.tokens(rank), p.the.hidden});
    CombineArgs back;
    back.x = routed.x;
    back.handle = routed.handle;
    back.out = out;
    buffer.combine(back);
    WireCount const after = wire_count(buffer);
    // The sums that go back are for the tokens of the rank in this one's place on the other node.
    int const node = p.the.nodes[index(rank)];
    std::int64_t const out_rows = rows_to_node(p, terms_of(p.the), rank, 1 - node);
    std::int64_t const back_rows = rows_to_node(p, terms_of(p.the), (rank + 4) % 8, node);
    check_wire_bytes("dispatch", between.bytes - before.bytes, out_rows * wire.hidden * 2, wire.most_beside);
    check_wire_bytes("combine", after.bytes - between.bytes, back_rows * wire.hidden * 2, wire.most_beside);
    // All but the last chunk of each call, and what goes beside rows.
    auto const in_small = (after.bytes - before.bytes) - (in_large_writes(after) - in_large_writes(before));
    auto const beside = static_cast<double>((out_rows + back_rows) * wire.hidden * 2) * wire.most_beside;
    check(static_cast<double>(in_small) < 2.0 * least_large + beside,
          "expected chunks of 256 KiB and more but for the last two, seen ", in_small, " bytes in smaller writes");
  });
}

INSTANTIATE_TEST_SUITE_P(Rows, WireBytes,
                         testing::Values(Wire{"of_14336_bytes", 7168, 0.005}, Wire{"of_2048_bytes", 1024, 0.02}),
                         [](auto const& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace switchyard::test
