// Low-latency dispatch and combine: the whole way with values that can be checked exactly, and the rules of frames.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "support/check.hpp"
#include "support/numbers.hpp"
#include "support/ranks.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t hidden = 300;
constexpr std::int64_t most_tokens = 9;
constexpr int top_k = 4;
constexpr int num_experts = 10;

LowLatencyOptions options_of(int max_results = 2) {
  return {.max_tokens = most_tokens,
          .hidden = hidden,
          .num_experts = num_experts,
          .top_k = top_k,
          .max_results = max_results,
          .timeout = std::chrono::seconds{20}};
}

std::size_t at(std::int64_t value) {
  return static_cast<std::size_t>(value);
}

// What one rank sends in one round; every rank can make everybody's.
struct Inputs {
  std::int64_t tokens;
  std::vector<std::int64_t> ids;
  std::vector<float> weights;
  std::vector<std::byte> x;

  Inputs(int rank, int round) : tokens((rank * 5 + round * 3) % (most_tokens + 1)) {
    Random random(mix(7, at(rank), at(round)));
    for (std::int64_t i = 0; i < tokens * top_k; ++i) {
      ids.push_back(random.chance(20) ? -1 : random.below(num_experts));  // now and then one twice
      weights.push_back(random.chance(50) ? 0.5F : 2.0F);
    }
    x.resize(at(tokens * hidden) * 2);
    for (std::size_t i = 0; i < at(tokens * hidden); ++i)
      put(x.data(), DType::bf16, i, static_cast<float>(random.between(-2, 2)));
  }

  [[nodiscard]] float value(std::int64_t token, std::int64_t channel) const {
    return get(x.data(), DType::bf16, at(token * hidden + channel));
  }
  [[nodiscard]] std::int64_t id(std::int64_t token, std::int64_t slot) const {
    return ids[at(token * top_k + slot)];
  }
  [[nodiscard]] LowLatencyDispatchArgs args(SlotLayout layout) const {
    LowLatencyDispatchArgs args;
    args.x = {x.data(), DType::bf16, {tokens, hidden}};
    args.topk_idx = {ids.data(), DType::i64, {tokens, top_k}};
    if (layout == SlotLayout::rank_major) args.topk_weights = weight_view();
    args.layout = layout;
    return args;
  }
  [[nodiscard]] ConstTensorView weight_view() const { return {weights.data(), DType::f32, {tokens, top_k}}; }
};

float factor_of(std::int64_t expert) {
  return static_cast<float>(1 + expert % 3);
}

// What a rank's experts make of what it received, written where a combine takes it from.
class Experts {
 public:
  Experts(Communicator const& communicator, LowLatencyReceived const& received, int round)
      : world_(communicator.size()), received_(received) {
    int const rank = communicator.rank();
    first_ = rank * (num_experts / world_) + std::min(rank, num_experts % world_);
    for (int source = 0; source < world_; ++source) inputs_.emplace_back(source, round);
  }

  void run_by_expert(Tensor const& outputs) const {
    for (std::int64_t local = 0; local < received_.x.size(0); ++local) {
      std::int64_t rows = 0;
      for (int source = 0; source < world_; ++source) {
        std::int64_t const range = received_.ranges.data<std::int64_t>()[local * world_ + source];
        rows += range & 0xffffffff;
        run_range(outputs, local, source, range);
      }
      check_equal(received_.counts.data<std::int32_t>()[local], rows, "count of expert ", local);
    }
  }

  void run_by_rank(Tensor const& outputs) const {
    for (int source = 0; source < world_; ++source) {
      for (std::int64_t row = 0; row < received_.counts.data<std::int32_t>()[source]; ++row) {
        std::int64_t const slot = source * most_tokens + row;
        float factor = 0;
        for (std::int64_t k = 0; k < top_k; ++k) {
          std::int32_t const local = received_.topk_idx.data<std::int32_t>()[slot * top_k + k];
          float const weight = received_.topk_weights.data<float>()[slot * top_k + k];
          check_equal(weight != 0, local >= 0, "weight without id");
          if (local >= 0) factor += weight * factor_of(first_ + local);
        }
        check_row(slot, source);
        write(outputs, slot, factor);
      }
    }
  }

 private:
  void run_range(Tensor const& outputs, std::int64_t local, int source, std::int64_t range) const {
    std::int32_t before = -1;
    for (std::int64_t row = range >> 32; row < (range >> 32) + (range & 0xffffffff); ++row) {
      std::int64_t const slot = local * received_.x.size(1) + row;
      std::int32_t const token = check_row(slot, source);
      check(token > before, "tokens of a range are not in order");
      before = token;
      bool const wanted = std::ranges::count(std::span(inputs_[at(source)].ids).subspan(at(token * top_k), top_k),
                                             first_ + local) > 0;
      check(wanted, "token ", token, " of rank ", source, " did not ask for expert ", first_ + local);
      write(outputs, slot, factor_of(first_ + local));
    }
  }

  std::int32_t check_row(std::int64_t slot, int source) const {
    std::int32_t const token = received_.source_token.data<std::int32_t>()[slot];
    Inputs const& from = inputs_[at(source)];
    check(token >= 0 && token < from.tokens, "source token ", token);
    check(std::equal(from.x.begin() + token * hidden * 2, from.x.begin() + (token + 1) * hidden * 2,
                     received_.x.data<std::byte>() + slot * hidden * 2),
          "row ", slot, " of rank ", source);
    return token;
  }

  void write(Tensor const& outputs, std::int64_t slot, float factor) const {
    for (std::int64_t channel = 0; channel < hidden; ++channel) {
      std::size_t const element = at(slot * hidden + channel);
      put(outputs.data<std::byte>(), DType::bf16, element,
          factor * get(received_.x.data<std::byte>(), DType::bf16, element));
    }
  }

  int world_;
  int first_ = 0;
  LowLatencyReceived const& received_;
  std::vector<Inputs> inputs_;
};

void check_sums(Inputs const& inputs, std::vector<std::byte> const& out) {
  for (std::int64_t token = 0; token < inputs.tokens; ++token) {
    float factor = 0;
    for (std::int64_t slot = 0; slot < top_k; ++slot) {
      if (inputs.id(token, slot) < 0) continue;
      factor += inputs.weights[at(token * top_k + slot)] * factor_of(inputs.id(token, slot));
    }
    for (std::int64_t channel = 0; channel < hidden; ++channel) {
      check_equal(get(out.data(), DType::bf16, at(token * hidden + channel)), factor * inputs.value(token, channel),
                  "sum of token ", token, " channel ", channel);
    }
  }
}

struct Way {
  SlotLayout layout = SlotLayout::expert_major;
  bool hooks = false;
  bool staged = false;
  int workers = 1;
};

void round_trip(LowLatencyBuffer& buffer, Way const& way, int round) {
  Communicator const& communicator = buffer.communicator();
  Inputs const inputs(communicator.rank(), round);
  LowLatencyDispatchArgs args = inputs.args(way.layout);
  args.num_workers = way.workers;
  ReceiveHook receive;
  LowLatencyReceived const received = way.hooks ? buffer.send_dispatch(args, receive) : buffer.dispatch(args);
  if (way.hooks) receive(0);
  Experts const experts(communicator, received, round);
  Tensor outputs = buffer.outputs(received.handle, DType::bf16);
  std::vector<std::byte> own(at(outputs.view().numel()) * 2);
  if (way.staged) {
    TensorView view = outputs;
    view.data = own.data();
    outputs = Tensor(view, nullptr);
  }
  way.layout == SlotLayout::expert_major ? experts.run_by_expert(outputs) : experts.run_by_rank(outputs);
  std::vector<std::byte> out(at(inputs.tokens * hidden) * 2);
  LowLatencyCombineArgs combine;
  combine.x = outputs;
  combine.handle = received.handle;
  if (way.layout == SlotLayout::expert_major) combine.topk_weights = inputs.weight_view();
  combine.out = {out.data(), DType::bf16, {inputs.tokens, hidden}};
  combine.num_workers = way.workers;
  if (way.hooks) {
    buffer.send_combine(combine, receive);
    receive(0);
    receive(0);
  } else {
    buffer.combine(combine);
  }
  check_sums(inputs, out);
}

TEST(LowLatencySmoke, RoundTrips) {
  for (Launch const launch : {Launch::threads, Launch::processes}) {
    for (SlotLayout const layout : {SlotLayout::expert_major, SlotLayout::rank_major}) {
      run_ranks(launch, 3, text("layout ", static_cast<int>(layout)), [&](Communicator& communicator) {
        LowLatencyBuffer buffer(communicator, options_of());
        int round = 0;
        for (bool const hooks : {false, true}) {
          for (bool const staged : {false, true}) {
            for (int const workers : {1, 3})
              round_trip(buffer, {.layout = layout, .hooks = hooks, .staged = staged, .workers = workers}, round++);
          }
        }
      });
    }
  }
}

TEST(LowLatencySmoke, MoreRanksThanExperts) {
  run_ranks(Launch::threads, 12, "12 ranks", [&](Communicator& communicator) {
    LowLatencyBuffer buffer(communicator, options_of());
    for (int round = 0; round < 4; ++round) round_trip(buffer, {}, round);
    for (int round = 0; round < 4; ++round) round_trip(buffer, {.layout = SlotLayout::rank_major}, round);
  });
}

// Results are held for as long as the buffer allows, and released on another thread.
TEST(LowLatencySmoke, HeldResults) {
  run_ranks(Launch::threads, 3, "held results", [&](Communicator& communicator) {
    LowLatencyBuffer buffer(communicator, options_of(3));
    int const rank = communicator.rank();
    std::vector<LowLatencyReceived> held;
    for (int round = 0; round < 3; ++round) held.push_back(buffer.dispatch(Inputs(rank, round).args({})));
    auto const error =
        expect_throw<InvalidArgument>("a fourth", [&] { (void)buffer.dispatch(Inputs(rank, 3).args({})); });
    check_names(error, {"max_results"});
    held.clear();
    for (int round = 0; round < 12; ++round) {
      auto received = std::make_shared<LowLatencyReceived>(buffer.dispatch(Inputs(rank, round).args({})));
      std::thread([last = std::move(received)] {}).join();
    }
  });
}

// Neither received nor held: the next use of the frame makes up for it.
TEST(LowLatencySmoke, AbandonedResults) {
  run_ranks(Launch::threads, 3, "abandoned results", [&](Communicator& communicator) {
    LowLatencyBuffer buffer(communicator, options_of());
    for (int round = 0; round < 6; ++round) {
      ReceiveHook receive;
      (void)buffer.send_dispatch(Inputs(communicator.rank(), round).args({}), receive);
    }
    for (int round = 0; round < 4; ++round) round_trip(buffer, {}, round);
  });
}

// A wrong call throws on its rank only; the corrected one goes on.
TEST(LowLatencySmoke, CorrectedCalls) {
  run_ranks(Launch::threads, 3, "corrected calls", [&](Communicator& communicator) {
    LowLatencyBuffer buffer(communicator, options_of());
    for (int round = 0; round < 4; ++round) {
      Inputs const inputs(communicator.rank(), round);
      if (communicator.rank() == 1) {
        LowLatencyDispatchArgs args = inputs.args({});
        std::vector<std::int64_t> ids(at(inputs.tokens * top_k), num_experts);
        args.topk_idx.data = ids.data();
        if (inputs.tokens > 0) (void)expect_throw<InvalidArgument>("id", [&] { (void)buffer.dispatch(args); });
        args = inputs.args({});
        args.x.shape[1] = 7;
        (void)expect_throw<InvalidArgument>("x", [&] { (void)buffer.dispatch(args); });
      }
      round_trip(buffer, {}, round);
    }
  });
}

// A disagreement fails the buffer on all ranks, and a reset brings it back.
TEST(LowLatencySmoke, DisagreementAndReset) {
  run_ranks(Launch::threads, 3, "disagreement", [&](Communicator& communicator) {
    LowLatencyBuffer buffer(communicator, options_of());
    round_trip(buffer, {}, 0);
    SlotLayout const layout = communicator.rank() == 1 ? SlotLayout::rank_major : SlotLayout::expert_major;
    auto const call = [&] {
      for (int i = 0; i < 3; ++i) (void)buffer.dispatch(Inputs(communicator.rank(), 1).args(layout));
    };
    (void)expect_throw<InvalidArgument>("layouts differ", call);
    (void)expect_throw<InvalidArgument>("failed", call);
    buffer.reset();
    for (int round = 0; round < 5; ++round) round_trip(buffer, {}, round);
  });
}

// A rank that all others have masked masks them in turn; they go on without it, and after a reset with it.
TEST(LowLatencySmoke, Masks) {
  run_ranks(Launch::threads, 3, "masks", [&](Communicator& communicator) {
    LowLatencyBuffer buffer(communicator, options_of());
    int const rank = communicator.rank();
    round_trip(buffer, {}, 0);
    communicator.barrier();
    if (rank != 2) {
      buffer.mask(2);
    } else {
      (void)buffer.dispatch(Inputs(rank, 1).args({}));
      (void)buffer.dispatch(Inputs(rank, 2).args({}));
      check(buffer.masked() == std::vector<bool>{true, true, false}, "rank 2 has not masked its peers");
    }
    for (int round = 1; round < 5 && rank != 2; ++round) {
      LowLatencyReceived const received = buffer.dispatch(Inputs(rank, round).args({}));
      for (std::int64_t local = 0; local < received.x.size(0); ++local)
        check_equal(received.ranges.data<std::int64_t>()[local * 3 + 2], 0, "range of a masked rank");
    }
    buffer.reset();
    check(buffer.masked() == std::vector<bool>(3), "masked after a reset");
    for (int round = 0; round < 5; ++round) round_trip(buffer, {}, round);
  });
}

LowLatencyOptions masking_options() {
  LowLatencyOptions options = options_of();
  options.timeout = std::chrono::milliseconds{300};
  options.mask_late_peers = true;
  return options;
}

// Two ranks go on without the third: its tokens are lost, and what went to it.
void go_on_without_the_last(LowLatencyBuffer& buffer, int first_round) {
  for (int round = first_round; round < first_round + 4; ++round) {
    Inputs const inputs(buffer.communicator().rank(), round);
    LowLatencyReceived const received = buffer.dispatch(inputs.args({}));
    std::vector<std::byte> out(at(inputs.tokens * hidden) * 2);
    LowLatencyCombineArgs combine;
    combine.x = buffer.outputs(received.handle, DType::bf16);
    combine.handle = received.handle;
    combine.out = {out.data(), DType::bf16, {inputs.tokens, hidden}};
    buffer.combine(combine);
  }
  check(buffer.masked() == std::vector<bool>{false, false, true}, "who is masked");
}

// It sleeps past the deadline; when it is back it learns that it is masked, and runs by itself.
TEST(LowLatencySmoke, ALatePeerIsMasked) {
  run_ranks(Launch::threads, 3, "late peer", [&](Communicator& communicator) {
    LowLatencyBuffer buffer(communicator, masking_options());
    round_trip(buffer, {}, 0);
    if (communicator.rank() != 2) {
      go_on_without_the_last(buffer, 1);
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds{1500});
      auto const begin = std::chrono::steady_clock::now();
      for (int round = 1; round < 4; ++round) (void)buffer.dispatch(Inputs(2, round).args({}));
      check(std::chrono::steady_clock::now() - begin < std::chrono::milliseconds{250}, "the late rank waited");
      check(buffer.masked() == std::vector<bool>{true, true, false}, "the late rank has not masked its peers");
    }
    buffer.reset();
    for (int round = 0; round < 3; ++round) round_trip(buffer, {}, round);
  });
}

TEST(LowLatencySmoke, ALatePeerFailsTheBuffer) {
  run_ranks(Launch::threads, 3, "late peer", [&](Communicator& communicator) {
    LowLatencyOptions options = masking_options();
    options.mask_late_peers = false;
    LowLatencyBuffer buffer(communicator, options);
    round_trip(buffer, {}, 0);
    if (communicator.rank() == 2) std::this_thread::sleep_for(std::chrono::milliseconds{1000});
    auto const error = expect_throw<Timeout>("a late rank", [&] { round_trip(buffer, {}, 1); });
    check_equal(error.peer(), 2, error.what());
    buffer.reset();
    round_trip(buffer, {}, 0);
  });
}

TEST(LowLatencySmoke, AKilledPeerIsMasked) {
  auto const outcomes = run_as_processes(3, [&](Communicator& communicator) {
    LowLatencyOptions options = masking_options();
    options.timeout = std::chrono::seconds{20};
    LowLatencyBuffer buffer(communicator, options);
    round_trip(buffer, {}, 0);
    if (communicator.rank() == 2) raise(SIGKILL);
    go_on_without_the_last(buffer, 1);
  });
  EXPECT_TRUE(outcomes[0].ok) << outcomes[0].what;
  EXPECT_TRUE(outcomes[1].ok) << outcomes[1].what;
}

TEST(LowLatencySmoke, AKilledPeerFailsTheBuffer) {
  auto const outcomes = run_as_processes(3, [&](Communicator& communicator) {
    LowLatencyBuffer buffer(communicator, options_of());
    round_trip(buffer, {}, 0);
    if (communicator.rank() == 2) raise(SIGKILL);
    auto const error = expect_throw<PeerLost>("a lost rank", [&] { round_trip(buffer, {}, 1); });
    check_equal(error.peer(), 2, error.what());
    (void)expect_throw<PeerLost>("afterwards", [&] { round_trip(buffer, {}, 1); });
    std::this_thread::sleep_for(std::chrono::milliseconds{500});  // the other one is not to lose this rank
  });
  EXPECT_TRUE(outcomes[0].ok) << outcomes[0].what;
  EXPECT_TRUE(outcomes[1].ok) << outcomes[1].what;
}

}  // namespace
}  // namespace switchyard::test
