// Asynchronous dispatch and combine, ordered with the caller's own streams.
#include "support/flow.hpp"
#include "support/gate.hpp"

namespace switchyard::test {
namespace {

using namespace std::chrono_literals;

// Runs `body(buffer, problem, rank)` on every rank.
template <typename Body>
void with_buffers(Case const& c, Body const& body) {
  Problem const problem = make_problem(c);
  run_ranks(c.launch, c.ranks, c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem, 6));
    body(buffer, problem, communicator.rank());
  });
}

class Async : public testing::TestWithParam<Launch> {
 protected:
  [[nodiscard]] static Case base() {
    return {.launch = GetParam(), .ranks = 3, .tokens = 20, .hidden = 70, .top_k = 3};
  }
};

TEST_P(Async, ResultsAreThoseOfTheSynchronousCalls) {
  with_buffers(base(), [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    Dispatched const received = buffer.dispatch_async(inputs.args()).get();
    DispatchChecker(p, rank).check_dispatch(received);
    CombineInputs const outputs(p, rank, {.biases = 1, .topk_weights = true});
    Tensor const x = buffer.allocate(p.the.combine_dtype, {outputs.rows(), p.the.hidden});
    outputs.write_rows(x.data<void>());
    outputs.check_result(buffer.combine_async(outputs.args(x, received.handle)).get());
  });
}

// x is written by a task that runs late; the dispatch must wait for it.
TEST_P(Async, DispatchStartsAfterItsEvent) {
  with_buffers(base(), [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    DispatchArgs args = inputs.args();
    std::vector<std::byte> late(p.inputs[index(rank)].x.size(), std::byte{0});
    args.x.data = late.data();
    Stream compute;
    Gate gate;
    args.after = compute.submit([&, closed = gate.wait_until_open()] {
      closed();
      std::copy(p.inputs[index(rank)].x.begin(), p.inputs[index(rank)].x.end(), late.begin());
    });
    Pending<Dispatched> pending = buffer.dispatch_async(args);
    check(!pending.event().done(), "done before its input");
    check(!pending.event().wait_for(5ms), "done before its input");
    gate.open();
    DispatchChecker(p, rank).check_dispatch(pending.get());
  });
}

// Expert work on the caller's stream between the two: dispatch -> compute -> combine.
TEST_P(Async, CombineStartsAfterTheExperts) {
  with_buffers(base(), [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    CombineInputs const outputs(p, rank, {});
    Stream compute("compute");
    Dispatched const received = buffer.dispatch_async(inputs.args()).get();
    Tensor const x = buffer.allocate(p.the.combine_dtype, {outputs.rows(), p.the.hidden});
    CombineArgs args = outputs.args(x, received.handle);
    args.after = compute.submit([&] {
      std::this_thread::sleep_for(5ms * (rank + 1));
      outputs.write_rows(x.data<void>());
    });
    outputs.check_result(buffer.combine_async(args).get());
  });
}

// Nothing waits on the host until the end; the experts read what the dispatch wrote.
TEST_P(Async, AWholeChainWithoutWaiting) {
  Case c = base();
  c.worst = true;
  c.dtype = c.combine_dtype;
  with_buffers(c, [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    CombineInputs const outputs(p, rank, {});
    Stream compute("compute");
    Pending<Dispatched> dispatched = buffer.dispatch_async(inputs.args());
    Dispatched const& early = dispatched.early();
    compute.wait(dispatched.event());
    Event const experts = compute.submit([&] {
      DispatchChecker(p, rank).check_dispatch(early);
      outputs.write_rows(early.x.data<void>());
    });
    CombineArgs args = outputs.args(early.x, early.handle);
    args.after = experts;
    Combined const combined = buffer.combine_async(args).get();
    experts.wait();
    outputs.check_result(combined);
  });
}

TEST_P(Async, ManyInFlight) {
  with_buffers(base(), [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    std::vector<Pending<Dispatched>> pending;
    for (int i = 0; i < 4; ++i) pending.push_back(buffer.dispatch_async(inputs.args()));
    for (Pending<Dispatched>& one : pending) DispatchChecker(p, rank).check_dispatch(one.get());
  });
}

// A synchronous call comes after what was queued before it.
TEST_P(Async, SynchronousCallsKeepTheOrder) {
  with_buffers(base(), [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    Pending<Dispatched> first = buffer.dispatch_async(inputs.args());
    round_trip(p, buffer);
    check(first.event().done(), "a later synchronous call returned first");
    DispatchChecker(p, rank).check_dispatch(first.get());
  });
}

// The buffer's stream orders like any other.
TEST_P(Async, TheBuffersStreamTakesTheCallersTasks) {
  with_buffers(base(), [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    Gate gate;
    (void)buffer.stream().submit(gate.wait_until_open());
    Pending<Dispatched> pending = buffer.dispatch_async(inputs.args());
    check(!pending.event().wait_for(5ms), "overtook a task of the stream");
    gate.open();
    buffer.stream().record().wait();
    check(pending.event().done(), "the record was done before the dispatch");
    DispatchChecker(p, rank).check_dispatch(pending.get());
  });
}

TEST_P(Async, ResultsMayBeDropped) {
  with_buffers(base(), [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    std::size_t const before = buffer.heap_bytes_used();
    for (int i = 0; i < 20; ++i) (void)buffer.dispatch_async(inputs.args());
    buffer.stream().synchronize();
    round_trip(p, buffer);
    check_equal(buffer.heap_bytes_used(), before, "heap in use");
  });
}

TEST_P(Async, ABufferGoesWithWorkInFlight) {
  with_buffers(base(), [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    Event last;
    {
      Buffer other(buffer.communicator(), options_for(p));
      last = other.dispatch_async(inputs.args()).event();
    }
    check(last.wait_for(30s), "the dispatch never ended");
    round_trip(p, buffer);
  });
}

TEST_P(Async, ErrorsComeBackOnEveryRank) {
  with_buffers(base(), [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    std::vector<std::int64_t> ids(p.inputs[index(rank)].ids);
    DispatchArgs args = inputs.args();
    if (rank == 0) ids[0] = 1000;
    args.topk_idx.data = ids.data();
    auto const error = expect_throw<InvalidArgument>("id 1000", [&] { (void)buffer.dispatch_async(args).get(); });
    check_names(error, {"topk_idx", "1000"});
    round_trip(p, buffer);
  });
}

// An `after` that failed counts as complete, as for Stream::wait.
TEST_P(Async, AFailedEventDoesNotStopTheDispatch) {
  with_buffers(base(), [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    Stream compute;
    DispatchArgs args = inputs.args();
    args.after = compute.submit([] { throw std::runtime_error("expert failed"); });
    DispatchChecker(p, rank).check_dispatch(buffer.dispatch_async(args).get());
  });
}

TEST_P(Async, AfterHoldsForSynchronousCallsToo) {
  with_buffers(base(), [](Buffer& buffer, Problem const& p, int rank) {
    RankInputs const inputs(p, rank);
    Stream compute;
    std::vector<std::byte> late(p.inputs[index(rank)].x.size(), std::byte{0});
    DispatchArgs args = inputs.args();
    args.x.data = late.data();
    args.after = compute.submit([&] {
      std::this_thread::sleep_for(10ms);
      std::copy(p.inputs[index(rank)].x.begin(), p.inputs[index(rank)].x.end(), late.begin());
    });
    DispatchChecker(p, rank).check_dispatch(buffer.dispatch(args));
  });
}

INSTANTIATE_TEST_SUITE_P(All, Async, testing::Values(Launch::threads, Launch::processes),
                         [](auto const& one) { return std::string(name_of(one.param)); });

}  // namespace
}  // namespace switchyard::test
