// Low-latency mode with ranks as processes; one of them is killed between halves.
#include "support/casualty.hpp"
#include "support/low_latency_trip.hpp"
#include "support/played_nodes.hpp"

namespace switchyard::test {
namespace {

constexpr int low_latency_ranks = 4;

SlotCase process_case(SlotLayout layout) {
  return {.launch = Launch::processes,
          .ranks = low_latency_ranks,
          .tokens = 16,
          .hidden = 200,
          .experts = 10,
          .top_k = 4,
          .layout = layout};
}

class LowLatencyProcesses : public LowLatencyTest, public testing::WithParamInterface<SlotLayout> {};

TEST_P(LowLatencyProcesses, RoundTrips) {
  Traces const traces;
  SlotCase c = process_case(GetParam());
  for (SendCast const cast : {SendCast::none, SendCast::fp8_ue8m0}) {
    c.cast = cast;
    auto const problems = make_slot_problems(c, 5);
    run_slot_buffers(c, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
      for (SlotProblem const& p : problems) slot_round_trip(p, rank, buffer);
    });
  }
  traces.expect_none();
}

TEST_P(LowLatencyProcesses, EightRanks) {
  SlotCase c = process_case(GetParam());
  c.ranks = 8;
  c.experts = 32;
  run_slot_case(c);
}

// Where the victim goes.
enum class Moment : std::uint8_t { before, after_send, after_receive, after_send_outputs };

constexpr char const* moment_name(Moment moment) {
  constexpr char const* names[] = {"before_the_dispatch", "after_its_send_half", "after_its_receive_half",
                                   "after_it_sent_outputs"};
  return names[static_cast<int>(moment)];
}

using KillParam = std::tuple<SlotLayout, Moment, int>;

class LowLatencyKill : public LowLatencyTest, public testing::WithParamInterface<KillParam> {
 protected:
  // Every rank makes one good round trip first; the victim goes in the next one.
  using Survivor = std::function<void(SlotRank&, LowLatencyBuffer&, SlotProblem const&, Board&)>;
  static void run(bool mask_late_peers, Survivor const& survivor);
};

void die_at(Moment moment, SlotTrip& trip) {
  if (moment == Moment::before) die();
  trip.send();
  if (moment == Moment::after_send) die();
  trip.receive();
  if (moment == Moment::after_receive) die();
  trip.send_outputs();
  die();
}

void LowLatencyKill::run(bool mask_late_peers, Survivor const& survivor) {
  Traces const traces;
  auto const [layout, moment, victim] = GetParam();
  SlotProblem const p = make_slot_problem(process_case(layout));
  Shared<Board> const board;
  Processes processes(low_latency_ranks, [&, moment = moment, victim = victim](Communicator& communicator) {
    std::unique_ptr<RankMemory> const memory = slot_engine().memory(communicator.rank());
    communicator.barrier();
    SlotRank rank{p.the, communicator, *memory};
    LowLatencyOptions options = rank.options();
    options.mask_late_peers = mask_late_peers;
    options.timeout = std::chrono::milliseconds{by_scale(8000, 3000)};
    LowLatencyBuffer buffer(communicator, options);
    slot_round_trip(p, rank, buffer);
    ++board->ready;
    SlotTrip trip(p, rank, buffer);
    if (rank.rank() == victim)
      check(wait_until([&] { return board->ready == low_latency_ranks; }), "the others hang");
    if (rank.rank() == victim) die_at(moment, trip);
    survivor(rank, buffer, p, *board);
  });
  expect_survivors(processes.wait(), victim, SIGKILL, text(moment_name(moment), " victim ", victim, " ", p.the));
  traces.expect_none();
}

// So that nobody is blamed for leaving first.
void end_together(Board& board) {
  ++board.done;
  check(wait_until([&] { return board.done >= low_latency_ranks - 1; }), "the other survivors never ended");
}

// Only the tokens of the dead rank are lost, and what its experts would have added.
TEST_P(LowLatencyKill, SurvivorsMaskTheDead) {
  run(true, [](SlotRank& rank, LowLatencyBuffer& buffer, SlotProblem const& p, Board& board) {
    auto const [layout, moment, victim] = GetParam();
    auto const peers = [&, victim = victim](Presence of_victim, Presence of_others) {
      auto const nodes = played_nodes(low_latency_ranks);
      auto const apart = [&](int a, int b) { return a == victim || b == victim; };
      Peers all;
      for (int peer = 0; peer < low_latency_ranks; ++peer) {
        bool const lost = are_apart(nodes, apart, rank.rank(), peer);
        // Ranks that exchange through the victim may still have done so.
        all.push_back(!lost ? Presence::here : (peer == victim ? of_victim : of_others));
      }
      return all;
    };
    SlotTrip trip(p, rank, buffer);
    trip.expect(peers(moment == Moment::before ? Presence::gone : Presence::unsure, Presence::unsure));
    trip.send();
    trip.receive();
    trip.check_received();
    trip.send_outputs();
    trip.receive_outputs();
    trip.expect(peers(moment == Moment::after_send_outputs ? Presence::unsure : Presence::gone, Presence::unsure));
    trip.check_combined();
    trip.release();
    Peers const later = peers(Presence::gone, Presence::gone);
    for (int i = 0; i < 3; ++i) {
      SlotTrip next(p, rank, buffer);
      next.expect(later);
      next.dispatch(i == 1);
      next.combine(i == 1);
      next.release();
    }
    std::vector<bool> const masked = buffer.masked();
    for (int peer = 0; peer < low_latency_ranks; ++peer)
      check_equal(masked[index(peer)], later[index(peer)] == Presence::gone, "masked[", peer, "] at rank ",
                  rank.rank());
    end_together(board);
  });
}

// Every survivor learns of it, in this trip or the next.
TEST_P(LowLatencyKill, SurvivorsThrow) {
  run(false, [](SlotRank& rank, LowLatencyBuffer& buffer, SlotProblem const& p, Board& board) {
    int const victim = std::get<2>(GetParam());
    auto const trips = [&] {
      for (int i = 0; i < 2; ++i) {
        SlotTrip trip(p, rank, buffer);
        trip.send();
        trip.receive();
        buffer.synchronize();
        trip.send_outputs();
        trip.receive_outputs();
        buffer.synchronize();
      }
    };
    try {
      trips();
      throw CheckFailed("lost a rank without a word");
    } catch (Error const& error) {
      check(error.code() == ErrorCode::peer_lost || error.code() == ErrorCode::timeout, "threw: ", error.what());
      check_equal(error.peer(), victim, "peer of the error: ", error.what());
    }
    (void)expect_throw_any("a call of a buffer that has failed", trips);
    end_together(board);
  });
}

// Nobody waits for a rank that is masked by hand, or minds that it goes: late peers are not masked here.
TEST_P(LowLatencyProcesses, AMaskedRankDies) {
  static constexpr int victim = low_latency_ranks - 1;
  SlotProblem const p = make_slot_problem(process_case(GetParam()));
  Shared<Board> const board;
  Processes processes(low_latency_ranks, [&](Communicator& communicator) {
    std::unique_ptr<RankMemory> const memory = slot_engine().memory(communicator.rank());
    communicator.barrier();
    SlotRank rank{p.the, communicator, *memory};
    LowLatencyBuffer buffer(communicator, rank.options());
    slot_round_trip(p, rank, buffer);
    communicator.barrier();
    if (rank.rank() != victim) buffer.mask(victim);
    ++board->ready;
    check(wait_until([&] { return board->ready == low_latency_ranks; }), "the others hang");
    if (rank.rank() == victim) die();
    auto const apart = [](int a, int b) { return a == victim || b == victim; };
    for (int i = 0; i < 20; ++i) {
      Peers peers;
      for (int peer = 0; peer < low_latency_ranks; ++peer) {
        bool const lost = are_apart(played_nodes(low_latency_ranks), apart, rank.rank(), peer);
        Presence const of_lost = peer == victim || i > 0 ? Presence::gone : Presence::unsure;
        peers.push_back(lost ? of_lost : Presence::here);
      }
      SlotTrip trip(p, rank, buffer);
      trip.expect(peers);
      trip.dispatch(i % 2 == 1);
      trip.combine(i % 2 == 1);
      trip.release();
    }
    end_together(*board);
  });
  expect_survivors(processes.wait(), victim, SIGKILL, text("victim ", victim, " ", p.the));
}

INSTANTIATE_TEST_SUITE_P(Layouts, LowLatencyProcesses,
                         testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                         [](auto const& one) { return std::string(name_of(one.param)); });
// The first rank serves the store.
INSTANTIATE_TEST_SUITE_P(All, LowLatencyKill,
                         testing::Combine(testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                                          testing::Values(Moment::before, Moment::after_send, Moment::after_receive,
                                                          Moment::after_send_outputs),
                                          testing::Values(0, low_latency_ranks - 1)),
                         [](auto const& one) {
                           return text(name_of(std::get<0>(one.param)), "_", moment_name(std::get<1>(one.param)),
                                       "_", std::get<2>(one.param));
                         });

}  // namespace
}  // namespace switchyard::test
