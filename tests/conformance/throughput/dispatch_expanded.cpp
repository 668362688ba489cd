// The layout with one row per (token, local expert): alignment, padding, and counts.
#include "support/flow.hpp"

namespace switchyard::test {
namespace {

Case expanded(int alignment) {
  return {
      .ranks = 3, .tokens = 12, .experts = 8, .top_k = 3, .layout = OutputLayout::expanded, .alignment = alignment};
}

TEST(DispatchExpanded, GroupsStartAtMultiplesOfTheAlignment) {
  for (int const alignment : {1, 2, 3, 16, 128}) {
    if (!run_case(expanded(alignment))) return;
  }
}

TEST(DispatchExpanded, PaddingIsZeroWhenAskedFor) {
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32, DType::f8e4m3}) {
    Case c = expanded(16);
    c.dtype = dtype;
    c.zero_padding = true;
    if (!run_case(c)) return;
  }
}

TEST(DispatchExpanded, PaddingIsZeroAfterACast) {
  Case c = expanded(16);
  c.cast = c.zero_padding = true;
  c.hidden = 200;
  run_case(c);
}

// The memory of an earlier result is used again: zeros must be written, not found.
class PaddedInUsedMemory : public testing::TestWithParam<DType> {};

TEST_P(PaddedInUsedMemory, PaddingIsZero) {
  Case c = expanded(32);
  c.zero_padding = true;
  c.dtype = GetParam();  // f8e4m3 has scales, too
  Problem const problem = make_problem(c);
  run_ranks(Launch::threads, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem));
    for (int i = 0; i < 6; ++i) {
      {
        Tensor const dirt =
            buffer.allocate(DType::u8, {static_cast<std::int64_t>(buffer.options().heap_bytes / 2)});
        std::memset(dirt.data<void>(), 0xff, index(dirt.size(0)));
      }
      round_trip(problem, buffer);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(DispatchExpanded, PaddedInUsedMemory, testing::Values(DType::bf16, DType::f8e4m3),
                         [](auto const& one) { return std::string(name_of(one.param)); });

TEST(DispatchExpanded, FlatCountsAreRoundedUpToTheAlignment) {
  for (int const alignment : {2, 7, 64}) {
    if (!run_case({.ranks = 3, .tokens = 12, .alignment = alignment})) return;
  }
}

TEST(DispatchExpanded, RanksWithoutExpertsReceiveNothing) {
  run_case({.ranks = 5, .experts = 3, .layout = OutputLayout::expanded, .alignment = 16});
  run_case({.launch = Launch::processes, .ranks = 5, .experts = 2, .layout = OutputLayout::expanded});
}

}  // namespace
}  // namespace switchyard::test
