// What a buffer counts, against what the ids say: straight from them, without anything that the engine uses.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "oracle/job.hpp"
#include "support/flow.hpp"
#include "support/inputs.hpp"
#include "support/ranks.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::test {
namespace {

// Slots of a source's tokens that name an expert.
std::int64_t slots_for(Problem const& p, int source, std::int64_t expert) {
  std::int64_t slots = 0;
  for (std::int64_t token = 0; token < p.tokens(source); ++token)
    for (int slot = 0; slot < p.the.top_k; ++slot) slots += p.id({source, token}, slot) == expert ? 1 : 0;
  return slots;
}

bool goes_there(Problem const& p, int source, std::int64_t token, oracle::ExpertRange const& experts, int rank) {
  if (p.the.by_rank) return p.in_rank({source, token}, rank);
  for (int slot = 0; slot < p.the.top_k; ++slot)
    if (experts.holds(p.id({source, token}, slot))) return true;
  return false;
}

// Rows that a source sends to a rank.
std::int64_t rows_for(Problem const& p, int source, int rank) {
  auto const experts = oracle::experts_of(p.the, rank);
  std::int64_t rows = 0;
  if (p.the.expanded()) {
    for (int expert = experts.begin; expert < experts.end; ++expert) rows += slots_for(p, source, expert);
    return rows;
  }
  for (std::int64_t token = 0; token < p.tokens(source); ++token)
    rows += goes_there(p, source, token, experts, rank) ? 1 : 0;
  return rows;
}

// Of bf16 with ids of 8 bytes and weights, where there are ids.
std::int64_t dispatched_row_bytes(Case const& c) {
  std::int64_t const of_slots = c.by_rank ? 0 : c.expanded() ? 4 : c.top_k * (8 + 4);
  return c.hidden * 2 + of_slots + 4;  // source_token
}

void check_counts(Problem const& p, int rank, std::int64_t calls, CallCounts const& counts) {
  check_equal(counts.dispatches, calls, "dispatches");
  check_equal(counts.combines, calls, "combines");
  check(calls == 0 || (counts.dispatch_ns > 0 && counts.combine_ns > 0), "calls took no time");
  auto const experts = oracle::experts_of(p.the, rank);
  check_equal(counts.tokens.size(), index(p.the.ranks * experts.count()), "tokens");
  for (int other = 0; other < p.the.ranks; ++other) {
    check_equal(counts.dispatch_bytes[index(other)], calls * rows_for(p, other, rank) * dispatched_row_bytes(p.the),
                "dispatch_bytes[", other, "]");
    check_equal(counts.combine_bytes[index(other)], calls * rows_for(p, rank, other) * p.the.hidden * 2,
                "combine_bytes[", other, "]");
    check(counts.dispatch_wait_ns[index(other)] >= 0, "dispatch_wait_ns[", other, "]");
    check(counts.combine_wait_ns[index(other)] >= 0, "combine_wait_ns[", other, "]");
    for (int local = 0; local < experts.count(); ++local) {
      std::int64_t const expected = p.the.by_rank ? 0 : calls * slots_for(p, other, experts.begin + local);
      check_equal(counts.tokens[index(other * experts.count() + local)], expected, "tokens[", other, ", ", local,
                  "]");
    }
  }
}

void dispatch_and_combine(Problem const& p, Buffer& buffer, Handle const& handle = {}) {
  RankInputs const inputs(p, buffer.communicator().rank());
  DispatchArgs args = handle.given() ? inputs.cached_args(handle) : inputs.args();
  if (handle.given() && !p.the.by_rank) {
    args.topk_idx = inputs.args().topk_idx;
    args.topk_weights = inputs.args().topk_weights;
  }
  Dispatched const routed = buffer.dispatch(args);
  buffer.combine(routed.x, routed.handle);
}

class CallCounting : public testing::TestWithParam<Case> {};

TEST_P(CallCounting, IsWhatTheIdsSay) {
  Problem const p = make_problem(GetParam());
  run_ranks(p.the, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p, 3));
    int const rank = communicator.rank();
    dispatch_and_combine(p, buffer);
    check_counts(p, rank, 0, call_counts(buffer));  // off at first
    count_calls(buffer, true);
    RankInputs const inputs(p, rank);
    Handle const handle = buffer.dispatch(inputs.args()).handle;
    std::vector<std::byte> const x(index(handle.num_recv_rows() * p.the.hidden) * 2, std::byte{0});
    buffer.combine({x.data(), DType::bf16, {handle.num_recv_rows(), p.the.hidden}}, handle);
    dispatch_and_combine(p, buffer);
    dispatch_and_combine(p, buffer, handle);
    check_counts(p, rank, 3, call_counts(buffer));
    count_calls(buffer, false);
    dispatch_and_combine(p, buffer);
    check_counts(p, rank, 3, call_counts(buffer));
    communicator.barrier();
  });
}

INSTANTIATE_TEST_SUITE_P(
    Cases, CallCounting,
    testing::Values(Case{.ranks = 3, .experts = 7}, Case{.ranks = 4, .counts = Tokens::last_none, .experts = 9},
                    Case{.ranks = 3, .experts = 7, .routing = Routing::sparse, .layout = OutputLayout::expanded},
                    Case{.ranks = 3, .routing = Routing::one_expert}, Case{.ranks = 2, .by_rank = true},
                    Case{.ranks = 3, .nodes = {0, 0, 1}, .experts = 7},
                    Case{.ranks = 4, .nodes = {0, 0, 1, 1}, .layout = OutputLayout::expanded},
                    Case{.ranks = 1, .counts = Tokens::all_none}));

// A rank that is late for certain is waited for, sooner or later: a waiting rank may itself be held up.
void check_that_a_late_rank_is_seen(Case const& c) {
  Problem const p = make_problem(c);
  int const late = c.ranks - 1;
  std::atomic<int> about_to_wait{0};
  std::atomic<bool> waited{false};
  run_ranks(c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p));
    count_calls(buffer, true);
    bool const is_late = communicator.rank() == late;
    for (int call = 1; call <= 50 && !waited; ++call) {
      while (is_late && about_to_wait < call * late) std::this_thread::yield();
      if (is_late) std::this_thread::sleep_for(std::chrono::milliseconds{5});
      if (!is_late) ++about_to_wait;
      dispatch_and_combine(p, buffer);
      communicator.barrier();
      if (!is_late && call_counts(buffer).dispatch_wait_ns[index(late)] > 0) waited = true;
      communicator.barrier();
    }
    check(waited, "nobody waited for a rank that is late");
  });
}

TEST(CallCountingOf, ARankThatIsLate) {
  check_that_a_late_rank_is_seen({.ranks = 3});
}

TEST(CallCountingOf, ARankOfAnotherNodeThatIsLate) {
  check_that_a_late_rank_is_seen({.ranks = 2, .nodes = {0, 1}});
}

// Somebody asks all the time, as a recorder may.
TEST(CallCountingOf, CallsThatAreUnderWay) {
  Case const c{.ranks = 2};
  Problem const p = make_problem(c);
  run_ranks(c, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p));
    count_calls(buffer, true);
    std::atomic<bool> over{false};
    std::atomic<bool> fell{false};
    std::thread asking([&] {
      std::int64_t seen = 0;
      while (!over) {
        std::int64_t const now = call_counts(buffer).dispatches;
        if (now < seen) fell = true;
        seen = now;
        std::this_thread::yield();
      }
    });
    for (int call = 0; call < 20; ++call) dispatch_and_combine(p, buffer);
    over = true;
    asking.join();
    check(!fell, "counts became less");
    check_counts(p, communicator.rank(), 20, call_counts(buffer));
    communicator.barrier();
  });
}

}  // namespace
}  // namespace switchyard::test
