// Every dtype, kind of ids, and way of telling the receivers, at every number of ranks, as threads and as
// processes.
#include "support/flow.hpp"

namespace switchyard::test {
namespace {

using LaunchParam = std::tuple<Launch, int>;

class EveryWorld : public testing::TestWithParam<LaunchParam> {
 protected:
  [[nodiscard]] static Case base() {
    Case c;
    std::tie(c.launch, c.ranks) = GetParam();
    c.experts = 11;
    c.top_k = 3;
    return c;
  }
};

TEST_P(EveryWorld, CarriesEveryDtype) {
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32, DType::f8e4m3}) {
    Case c = base();
    c.dtype = dtype;
    c.combine_dtype = dtype == DType::f8e4m3 ? DType::bf16 : dtype;
    if (!run_case(c)) return;
  }
}

TEST_P(EveryWorld, CastsEveryDtypeToFp8) {
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32}) {
    Case c = base();
    c.dtype = dtype;
    c.cast = true;
    c.hidden = 129;
    if (!run_case(c)) return;
  }
}

TEST_P(EveryWorld, TakesIdsOfEitherWidth) {
  for (DType const ids : {DType::i32, DType::i64}) {
    Case c = base();
    c.id_dtype = ids;
    if (!run_case(c)) return;
  }
}

TEST_P(EveryWorld, WorksWithoutWeights) {
  Case c = base();
  c.weights = false;
  run_case(c);
}

TEST_P(EveryWorld, WorksWithoutTopK) {
  Case c = base();
  c.by_rank = true;
  run_case(c);
}

std::string name_of_launch(testing::TestParamInfo<LaunchParam> const& info) {
  return std::string(name_of(std::get<0>(info.param))) + std::to_string(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Threads, EveryWorld,
                         testing::Combine(testing::Values(Launch::threads), testing::Values(1, 2, 3, 5, 8)),
                         name_of_launch);
INSTANTIATE_TEST_SUITE_P(Processes, EveryWorld,
                         testing::Combine(testing::Values(Launch::processes), testing::Values(1, 2, 3, 5, 8)),
                         name_of_launch);

}  // namespace
}  // namespace switchyard::test
