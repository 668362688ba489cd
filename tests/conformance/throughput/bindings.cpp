// What language bindings build on: InterruptScope, StoreServer, get_layout without a buffer.
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

#include "switchyard/switchyard.hpp"

namespace switchyard::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int tokens = 4;
constexpr int bound_hidden = 8;

struct Inputs {
  std::array<float, tokens * bound_hidden> x{};
  std::array<std::int64_t, tokens> ids{0, 1, 1, -1};
  [[nodiscard]] DispatchArgs args() const {
    return {.x = {x.data(), DType::f32, {tokens, bound_hidden}}, .topk_idx = {ids.data(), DType::i64, {tokens, 1}}};
  }
};

Buffer make_buffer(Communicator const& communicator) {
  return Buffer(communicator, {.max_tokens = tokens,
                               .hidden = bound_hidden,
                               .num_experts = 2,
                               .top_k = 1,
                               .timeout = std::chrono::minutes(10),  // no deadline can be what ends a wait
                               .engine = EngineKind::cpu});
}

template <typename Body>
void on_two_ranks(Body const& body) {
  auto const store = Communicator::in_process_store();
  std::vector<std::jthread> ranks;
  for (int rank = 0; rank < 2; ++rank) ranks.emplace_back([&, rank] { body(Communicator::join(store, rank, 2)); });
}

TEST(Interrupt, EndsAWaitOnAllRanksAndResetMendsIt) {
  std::atomic<bool> ended{false};
  on_two_ranks([&](Communicator const& communicator) {
    Buffer buffer = make_buffer(communicator);
    Inputs const inputs;
    if (communicator.rank() == 0) {
      InterruptScope const scope([]() noexcept { return true; });
      EXPECT_THROW((void)buffer.dispatch(inputs.args()), SystemError);
      ended = true;
    } else {
      while (!ended) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      try {
        (void)buffer.dispatch(inputs.args());
        ADD_FAILURE() << "the peer's interrupt was not reported";
      } catch (SystemError const& error) {
        EXPECT_THAT(error.what(), HasSubstr("interrupted by its caller"));
        EXPECT_EQ(error.rank(), 0);
      }
    }
    buffer.reset();
    EXPECT_EQ(buffer.dispatch(inputs.args()).x.size(0), communicator.rank() == 0 ? 2 : 4);
  });
}

TEST(Interrupt, ACheckThatSaysNoAndOnesThatWentAreNotHeard) {
  on_two_ranks([](Communicator const& communicator) {
    Buffer buffer = make_buffer(communicator);
    Inputs const inputs;
    {
      InterruptScope const gone([]() noexcept { return true; });
    }
    InterruptScope const scope([]() noexcept { return false; });
    if (communicator.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(120));
    EXPECT_NO_THROW((void)buffer.dispatch(inputs.args()));
  });
}

TEST(StoreServer, IsWhereRanksMeetThatDoNotServe) {
  StoreServer const server("token");
  std::vector<std::jthread> ranks;
  for (int rank = 0; rank < 3; ++rank) {
    ranks.emplace_back([&, rank] {
      CommunicatorOptions const options{
          .rank = rank, .size = 3, .address = server.address(), .token = "token", .serve = false};
      Communicator::connect(options).barrier();
    });
  }
}

TEST(Layout, NeedsNoBuffer) {
  Inputs const inputs;
  Layout const layout = get_layout(inputs.args().topk_idx, 2, 2);
  auto const per_rank = std::span(layout.num_tokens_per_rank.data<std::int32_t>(), 2);
  auto const per_expert = std::span(layout.num_tokens_per_expert.data<std::int32_t>(), 2);
  auto const in_rank = std::span(layout.is_token_in_rank.data<std::uint8_t>(), 2 * tokens);
  EXPECT_THAT(per_rank, ElementsAre(1, 2));
  EXPECT_THAT(per_expert, ElementsAre(1, 2));
  EXPECT_THAT(in_rank, ElementsAre(1, 0, 0, 1, 0, 1, 0, 0));
  EXPECT_THROW((void)get_layout(inputs.args().topk_idx, 1, 2), InvalidArgument);  // id 1 is out of range
  EXPECT_THROW((void)get_layout(inputs.args().topk_idx, 2, 0), InvalidArgument);
  EXPECT_THROW((void)get_layout(inputs.args().x, 2, 2), InvalidArgument);
}

// Scales of another kind than f32 travel as they are, and both kinds can be had by column.
TEST(Results, HaveTheFormThatBindingsWant) {
  constexpr int words = 3;
  constexpr int wide = 4 * 128;
  auto const world = Communicator::join(Communicator::in_process_store(), 0, 1);
  Buffer buffer(world,
                {.max_tokens = tokens, .hidden = wide, .num_experts = 2, .top_k = 1, .engine = EngineKind::cpu});
  std::vector<std::uint8_t> const x(tokens * wide);
  std::vector<std::int32_t> scales(tokens * words);
  for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = 0x7f80'0001 + static_cast<std::int32_t>(i);  // NaNs
  Inputs const inputs;
  DispatchArgs args = inputs.args();
  args.x = {x.data(), DType::f8e4m3, {tokens, wide}};
  args.scales = {scales.data(), DType::i32, {tokens, words}};
  Dispatched const received = buffer.dispatch(args);
  ASSERT_EQ(received.scales.dtype(), DType::i32);
  constexpr int rows = 3;  // the last token chose no expert
  ASSERT_EQ(received.scales.size(0), rows);
  EXPECT_TRUE(std::equal(scales.begin(), scales.begin() + rows * words, received.scales.data<std::int32_t>()));

  Tensor const columns = buffer.by_column(received.scales);
  EXPECT_EQ(columns.view().stride(0), 1);
  EXPECT_EQ(columns.view().stride(1), 4);
  for (int row = 0; row < rows; ++row) {
    for (int word = 0; word < words; ++word)
      EXPECT_EQ(columns.data<std::int32_t>()[row + 4 * word], scales[static_cast<std::size_t>(row * words + word)]);
  }

  Tensor const copy = buffer.copy(received.scales);
  ASSERT_EQ(copy.size(0), rows);
  EXPECT_TRUE(std::equal(scales.begin(), scales.begin() + rows * words, copy.data<std::int32_t>()));
  EXPECT_FALSE(buffer.copy(columns).given());  // has gaps

  std::array<std::int64_t, 4> sums{10, 77, 20, 77};
  TensorView every_second(sums.data(), DType::i64, {2});
  every_second.strides[0] = 2;
  EXPECT_TRUE(buffer.add_received(received.handle, every_second));
  EXPECT_THAT(sums, ElementsAre(11, 77, 22, 77));
  std::array<std::int32_t, 2> narrow{};
  EXPECT_TRUE(buffer.add_received(received.handle, {narrow.data(), DType::i32, {2}}));
  EXPECT_THAT(narrow, ElementsAre(1, 2));
  EXPECT_THROW((void)buffer.add_received(received.handle, {narrow.data(), DType::i32, {1}}), InvalidArgument);
  TensorView one_for_all(narrow.data(), DType::i32, {2});
  one_for_all.strides[0] = 0;
  EXPECT_THROW((void)buffer.add_received(received.handle, one_for_all), InvalidArgument);
  EXPECT_THROW((void)buffer.add_received({}, {narrow.data(), DType::i32, {2}}), InvalidArgument);
  args.received_per_expert = every_second;
  (void)buffer.dispatch(args);
  EXPECT_THAT(sums, ElementsAre(12, 77, 24, 77));
  args.num_worst_tokens = tokens;
  (void)buffer.dispatch_async(args).get();
  EXPECT_THAT(sums, ElementsAre(13, 77, 26, 77));
  args.num_worst_tokens = 0;
  args.received_per_expert = one_for_all;
  EXPECT_THROW((void)buffer.dispatch(args), InvalidArgument);
  DispatchArgs cached = args;
  cached.topk_idx = {};
  cached.topk_weights = {};
  cached.handle = received.handle;
  cached.received_per_expert = {narrow.data(), DType::i32, {2}};
  (void)buffer.dispatch(cached);
  EXPECT_THAT(narrow, ElementsAre(2, 4));
  args.received_per_expert = {};
  args.scales = {scales.data(), DType::i32, {2, 5}};
  EXPECT_THROW((void)buffer.dispatch(args), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test
