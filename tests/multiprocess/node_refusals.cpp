// What one rank refuses over nodes, or asks for otherwise than the others: all ranks of the job throw the same
// error, and the buffer goes on. And a call that its caller interrupts.
#include <map>

#include "support/node_calls.hpp"
#include "switchyard/interrupt.hpp"

namespace switchyard::test {
namespace {

using namespace std::chrono_literals;

class NodeRefusals : public Nodes {
 protected:
  // All ranks make these calls, which none survives, and then one that is right.
  struct Refused {
    std::string what;
    ErrorCode code = ErrorCode::invalid_argument;
    int rank = 0;  // who is to blame
    std::vector<std::string_view> words{};
    std::function<void(Buffer&, Problem const&, int rank)> call;
  };

  void run(Problem const& problem, std::vector<Refused> const& all) const {
    Traces const traces;
    Processes processes = start([&](Communicator& communicator) {
      Buffer buffer(communicator, node_options(problem, 10s));
      round_trip(problem, buffer);
      for (Refused const& each : all) refuse_together(communicator, buffer, problem, each);
    });
    for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
    traces.expect_none();
  }

 private:
  static void refuse_together(Communicator& communicator, Buffer& buffer, Problem const& problem,
                              Refused const& refused) {
    auto const error = expect_throw_any(refused.what, [&] { refused.call(buffer, problem, communicator.rank()); });
    check_equal(static_cast<int>(error.code()), static_cast<int>(refused.code), refused.what,
                ": code: ", error.what());
    check_equal(error.rank(), refused.rank, refused.what, ": rank of the error: ", error.what());
    check_names(error, {text("rank ", refused.rank)});
    for (std::string_view const word : refused.words) check_names(error, {word});
    std::string const mine = error.what();
    for (auto const& each : communicator.all_gather(std::as_bytes(std::span(mine)))) {
      std::string const theirs(reinterpret_cast<char const*>(each.data()), each.size());
      check_equal(theirs, mine, refused.what, ": text of another rank");
    }
    round_trip(problem, buffer);
  }
};

using Spoil = std::function<void(DispatchArgs&)>;

// A dispatch that `who` spoils.
auto dispatch_spoiled_by(std::vector<int> const& who, Spoil const& spoil) {
  return [who, spoil](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    DispatchArgs args = inputs.args();
    if (std::ranges::find(who, rank) != who.end()) spoil(args);
    (void)buffer.dispatch(args);
  };
}

// Seeds of what the transport does to the writes. With 0 nothing; otherwise letters may still be here when a call
// is refused, and somebody has to send them on.
class NodeRefusalsOver : public NodeRefusals, public testing::WithParamInterface<char const*> {
 protected:
  void SetUp() override {
    NodeRefusals::SetUp();
    setenv("SWITCHYARD_FAULTS", GetParam(), 1);  // ranks inherit it
  }
  void TearDown() override { unsetenv("SWITCHYARD_FAULTS"); }
};
INSTANTIATE_TEST_SUITE_P(Faults, NodeRefusalsOver, testing::Values("0", "11"));

TEST_P(NodeRefusalsOver, ArgumentsOfOneRank) {
  auto const too_wide = [](DispatchArgs& args) { args.x.shape[1] = 19; };
  auto const combine_of = [](int who) {
    return [who](Buffer& buffer, Problem const& p, int rank) {
      RankInputs const inputs(p, rank);
      Dispatched const received = buffer.dispatch(inputs.args());
      ConstTensorView x = received.x.view();
      if (rank == who) x.shape[0] += 1;
      (void)buffer.combine(x, received.handle);
    };
  };
  std::vector<Refused> all;
  for (int const who : {0, 3, 5})
    all.push_back({text("x of rank ", who),
                   ErrorCode::invalid_argument,
                   who,
                   {"x", "19"},
                   dispatch_spoiled_by({who}, too_wide)});
  for (int const who : {1, 4})
    all.push_back({text("x of a combine of rank ", who), ErrorCode::invalid_argument, who, {"x"}, combine_of(who)});
  all.push_back({"two that refuse", ErrorCode::invalid_argument, 2, {"x"}, dispatch_spoiled_by({5, 2}, too_wide)});
  run(make_problem(node_case()), all);
}

TEST_F(NodeRefusals, RanksThatAskForOtherThings) {
  std::vector<Refused> all;
  std::map<std::string_view, Spoil> const others{
      {"expert_alignment", [](DispatchArgs& args) { args.expert_alignment = 4; }},
      {"layout", [](DispatchArgs& args) { args.layout = OutputLayout::expanded; }},
      {"topk_weights", [](DispatchArgs& args) { args.topk_weights = {}; }},
      {"num_worst_tokens", [](DispatchArgs& args) { args.num_worst_tokens = 1000; }},
      {"cast_to_fp8", [](DispatchArgs& args) { args.cast_to_fp8 = true; }}};
  int who = 0;
  for (auto const& [term, spoil] : others) {
    who = who % (num_node_ranks - 1) + 1;
    all.push_back({text(term, " of rank ", who),
                   ErrorCode::invalid_argument,
                   who,
                   {term},
                   dispatch_spoiled_by({who}, spoil)});
  }
  // All nodes but the first have other terms than rank 0: the first of them is named.
  all.push_back({"layout of rank 0",
                 ErrorCode::invalid_argument,
                 1,
                 {"layout"},
                 dispatch_spoiled_by({0}, others.at("layout"))});
  auto const other_calls = [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    Dispatched const received = buffer.dispatch(inputs.args());
    if (rank == 4) {
      (void)buffer.combine(received.x, received.handle);
    } else {
      (void)buffer.dispatch(inputs.args());
    }
  };
  all.push_back({"a combine among dispatches", ErrorCode::invalid_argument, 4, {"call"}, other_calls});
  auto const cached = [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    Dispatched const received = buffer.dispatch(inputs.args());
    (void)buffer.dispatch(rank == 3 ? inputs.cached_args(received.handle) : inputs.args());
  };
  all.push_back({"a handle among ids", ErrorCode::invalid_argument, 3, {"routing"}, cached});
  run(make_problem(node_case()), all);
}

// Every rank but the named ones has room for all that comes.
TEST_F(NodeRefusals, ReceiversWithoutRoom) {
  auto const worst = [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    DispatchArgs args = inputs.args();
    args.num_worst_tokens = 40;
    (void)buffer.dispatch(args);
  };
  auto const no_memory = [](std::vector<int> const& who) {
    return [who](Buffer& buffer, Problem const& p, int rank) {
      Tensor held;
      if (std::ranges::find(who, rank) != who.end()) {
        // All that it has but some pages, which is less than what a result takes.
        auto const bytes = static_cast<std::int64_t>(buffer.options().heap_bytes);
        for (std::int64_t room = bytes; room > 4096 && !held.given(); room -= 4096) {
          try {
            held = buffer.allocate(DType::u8, {room});
          } catch (OutOfMemory const&) {  // smaller, then
          }
        }
      }
      RankInputs const inputs(p, rank);
      (void)buffer.dispatch(inputs.args());
    };
  };
  run(make_problem(node_case()),
      {{"num_worst_tokens of all", ErrorCode::invalid_argument, 0, {"num_worst_tokens", "40"}, worst},
       {"a heap that is full", ErrorCode::out_of_memory, 3, {}, no_memory({3})},
       {"heaps of two nodes", ErrorCode::out_of_memory, 2, {}, no_memory({5, 2})},
       {"a heap of rank 0", ErrorCode::out_of_memory, 0, {}, no_memory({0})},
       {"heaps of all", ErrorCode::out_of_memory, 0, {}, no_memory({0, 1, 2, 3, 4, 5})}});
}

// Only what goes to rank 0 does not fit.
TEST_F(NodeRefusals, WorstCaseOfOneReceiver) {
  Case c = node_case();
  c.routing = Routing::one_expert;
  auto const worst = [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    DispatchArgs args = inputs.args();
    args.num_worst_tokens = 48 * num_node_ranks - 1;
    (void)buffer.dispatch(args);
  };
  run(make_problem(c),
      {{"num_worst_tokens", ErrorCode::invalid_argument, 0, {"num_worst_tokens", "288", "287"}, worst}});
}

// Ctrl-C on one rank while others are late: it ends the call everywhere, and a reset brings the buffer back.
TEST_F(NodeRefusals, AnInterrupt) {
  static std::atomic<bool> wanted{false};
  Problem const problem = make_problem(node_case());
  Shared<Board> const board;
  constexpr int who = 4;
  constexpr int late = 1;
  Processes processes = start([&](Communicator& communicator) {
    Buffer buffer(communicator, node_options(problem));
    round_trip(problem, buffer);
    communicator.barrier();  // else a rank that is slow is in that call when another one is interrupted
    int const rank = communicator.rank();
    InterruptScope const scope([]() noexcept { return wanted.load(); });
    std::thread pressed([&] {
      std::this_thread::sleep_for(200ms);
      wanted = rank == who;
    });
    if (rank == late)
      check(wait_until([&] { return board->done >= num_node_ranks - 1; }), "the others never ended");
    auto const error =
        expect_throw<SystemError>("a call that is interrupted", [&] { round_trip(problem, buffer); });
    pressed.join();
    wanted = false;
    ++board->done;
    check_equal(error.rank(), who, "rank of the error: ", error.what());
    check_names(error, {"interrupted", text("rank ", who)});
    buffer.reset();
    round_trip(problem, buffer);
  });
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

}  // namespace
}  // namespace switchyard::test
