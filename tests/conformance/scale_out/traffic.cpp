// Whole calls over a port: every byte is checked, and nobody waits for anybody between calls, so ranks run ahead.
#include <gtest/gtest.h>

#include <numeric>

#include "conformance/scale_out/calls.hpp"

namespace switchyard::test {
namespace {

using scale_out::Port;
using scale_out::PortSizes;

struct Case {
  std::string name;
  NodeNames nodes;
  PortSizes sizes;
};

void PrintTo(Case const& one, std::ostream* out) {
  *out << one.name;
}

NodeNames const two_by_two{"a", "a", "b", "b"};
NodeNames const uneven{"a", "a", "b", "c", "c", "c"};
NodeNames const alone{"a", "b"};

std::vector<Case> const cases{
    {"TwoByTwo", two_by_two, {.letter_bytes = 300, .slot_bytes = 1000, .slots = 4, .send_slots = 4}},
    {"Uneven", uneven, {.letter_bytes = 100, .slot_bytes = 500, .slots = 3, .send_slots = 5}},
    {"Alone", alone, {.letter_bytes = 0, .slot_bytes = 70000, .slots = 5, .send_slots = 3}},
    {"OneSlot", uneven, {.letter_bytes = 1, .slot_bytes = 4, .slots = 1, .send_slots = 1}},
    {"NoSlots", two_by_two, {.letter_bytes = 64, .slot_bytes = 0, .slots = 0, .send_slots = 0}},
};

class PortTraffic : public testing::TestWithParam<std::tuple<Case, Way>> {};

void check_counters(Port const& port, Caller const& caller) {
  auto const& sent = port.sent();
  check_equal(sent.bytes, caller.bytes(), "bytes");
  // Credits may still wait for room.
  check(sent.writes >= caller.writes() && sent.writes <= caller.writes() + caller.credits(),
        "writes: ", sent.writes);
  auto const& by_size = sent.writes_by_size;
  check_equal(std::accumulate(by_size.begin(), by_size.end(), std::uint64_t{0}), sent.writes, "writes by size");
}

TEST_P(PortTraffic, EveryByteOfManyCalls) {
  auto const& [one, way] = GetParam();
  if (auto const why = choose(way); !why.empty()) GTEST_SKIP() << why;
  std::uint64_t const seed = fresh_seed();
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", seed));
  auto const calls = static_cast<std::uint64_t>(way.faults != 0 ? by_scale(3, 12) : by_scale(10, 100));
  run_ports(one.nodes, one.sizes, [&, &test = one](Port& port, Job& job) {
    Caller caller(port, job, {.seed = seed, .sizes = test.sizes});
    for (std::uint64_t epoch = 1; epoch <= calls; ++epoch) caller.call(epoch);
    check_counters(port, caller);
  });
}

class PortEpochs : public PortTraffic {};

// More calls than an immediate has epochs.
TEST_P(PortEpochs, ComeRound) {
  auto const& [one, way] = GetParam();
  if (auto const why = choose(way); !why.empty()) GTEST_SKIP() << why;
  auto const calls = static_cast<std::uint64_t>(by_scale(300, 600));
  run_ports(one.nodes, one.sizes, [&](Port& port, Job& /*job*/) {
    for (std::uint64_t epoch = 1; epoch <= calls; ++epoch) exchange_letters(port, epoch);
  });
}

// Seeds of faults that differ, without delays so long that nothing else happens: none, and nearly all writes
// delayed by up to 30 or 300 polls; room for 1, 2, 5 or any writes; 1, 2, 7 or any events of a poll.
std::vector<Way> ways() {
  std::vector<Way> all{{"loopback", 0}, {"libfabric", 0}, {"libfabric", 11}, {"loopback", 7}, {"loopback", 14}};
  for (int const seed : {1, 2, 9, 10, 11, 12})
    if (!small_scale()) all.push_back({"loopback", seed});
  return all;
}

std::string name_of_test(testing::TestParamInfo<std::tuple<Case, Way>> const& test) {
  auto const& [one, way] = test.param;
  return one.name + "_" + way.transport + "_" + std::to_string(way.faults);
}

INSTANTIATE_TEST_SUITE_P(All, PortTraffic, testing::Combine(testing::ValuesIn(cases), testing::ValuesIn(ways())),
                         name_of_test);
// So many calls would take minutes over faults.
INSTANTIATE_TEST_SUITE_P(All, PortEpochs,
                         testing::Combine(testing::ValuesIn(cases),
                                          testing::Values(Way{"loopback", 0}, Way{"libfabric", 0})),
                         name_of_test);

}  // namespace
}  // namespace switchyard::test
