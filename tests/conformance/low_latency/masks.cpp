// Low-latency mode: ranks that are masked, by the caller or because they are late; and the way back.
#include <atomic>

#include "support/casualty.hpp"
#include "support/low_latency_trip.hpp"
#include "support/played_nodes.hpp"

namespace switchyard::test {
namespace {

constexpr int mask_ranks = 4;
constexpr int outcast = 2;

class LowLatencyMasks : public LowLatencyTest, public testing::WithParamInterface<SlotLayout> {
 protected:
  [[nodiscard]] static SlotCase base() {
    return {.ranks = mask_ranks, .tokens = 8, .hidden = 50, .experts = 10, .top_k = 4, .layout = GetParam()};
  }
};

// What `rank` can count on when some ranks do without each other.
Peers peers_of(int rank, Apart const& apart) {
  auto const nodes = played_nodes(mask_ranks);
  Peers peers;
  for (int peer = 0; peer < mask_ranks; ++peer)
    peers.push_back(are_apart(nodes, apart, rank, peer) ? Presence::gone : Presence::here);
  return peers;
}

// When nobody talks to the outcast.
Peers without_outcast(int rank) {
  return peers_of(rank, [](int a, int b) { return a == outcast || b == outcast; });
}

void round_trips(SlotProblem const& p, SlotRank& rank, LowLatencyBuffer& buffer, Peers const& peers) {
  for (int i = 0; i < 2; ++i) slot_round_trip(p, rank, buffer, peers);
  check_masked(buffer, peers.empty() ? Peers(mask_ranks, Presence::here) : peers);
}

TEST_P(LowLatencyMasks, NobodyAtFirst) {
  run_slot_buffers(base(), [&](SlotRank&, LowLatencyBuffer& buffer) {
    check_masked(buffer, Peers(mask_ranks, Presence::here));
  });
}

// Nobody signals the outcast, and it finds out.
TEST_P(LowLatencyMasks, ByEveryone) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    slot_round_trip(p, rank, buffer);
    if (rank.rank() != outcast) buffer.mask(outcast);
    rank.communicator.barrier();
    round_trips(p, rank, buffer, without_outcast(rank.rank()));
  });
}

// The outcast makes no calls any more. It has ended its last combine before it is masked: nobody waits afterwards
// until it has read.
TEST_P(LowLatencyMasks, OfARankThatDoesNotTakePart) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    slot_round_trip(p, rank, buffer);
    rank.communicator.barrier();
    if (rank.rank() != outcast) buffer.mask(outcast);
    if (rank.rank() != outcast) round_trips(p, rank, buffer, without_outcast(rank.rank()));
  });
}

// One rank masks another: the two do without each other, the rest is as before.
TEST_P(LowLatencyMasks, OfOneByOne) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    slot_round_trip(p, rank, buffer);
    if (rank.rank() == 0) buffer.mask(outcast);
    rank.communicator.barrier();
    round_trips(p, rank, buffer, peers_of(rank.rank(), [](int a, int b) {
                  return std::min(a, b) == 0 && std::max(a, b) == outcast;
                }));
  });
}

// Ranks make calls until something holds that is no part of them, and as many each: rank 0 leads.
class EqualCalls {
 public:
  void until(std::function<bool()> const& holds, int rank, std::function<void()> const& call) {
    for (int number = 0;; ++number) {
      if (rank == 0 && holds()) over_ = true;
      if (rank == 0 && !over_) begun_ = number + 1;
      check(wait_until([&] { return begun_ > number || over_; }), "rank 0 makes no calls any more");
      if (begun_ <= number) return;
      call();
    }
  }

 private:
  std::atomic<int> begun_{0};
  std::atomic<bool> over_{false};
};

// Over nodes the outcast does not learn of it in this call, and its rows may leave only while the others make
// calls.
TEST_P(LowLatencyMasks, BetweenHalves) {
  SlotProblem const p = make_slot_problem(base());
  std::atomic<bool> done{false};
  EqualCalls more;
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    SlotTrip trip(p, rank, buffer);
    trip.send();
    buffer.synchronize();
    rank.communicator.barrier();
    if (rank.rank() != outcast) buffer.mask(outcast);
    if (rank.rank() != outcast) trip.expect(without_outcast(rank.rank()));
    if (rank.rank() == outcast) trip.expect(Peers(mask_ranks, Presence::unsure));
    trip.receive();
    trip.check_received();
    if (rank.rank() != outcast) trip.combine();
    trip.release();
    if (rank.rank() == outcast) done = true;
    if (rank.rank() != outcast)
      more.until([&] { return done.load(); }, rank.rank(),
                 [&] { slot_round_trip(p, rank, buffer, without_outcast(rank.rank())); });
    rank.communicator.barrier();
    buffer.reset();
    round_trips(p, rank, buffer, {});
  });
}

// All ranks have made the same calls meanwhile.
TEST_P(LowLatencyMasks, AreTakenOff) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < 2; ++i) {
      if (rank.rank() != outcast) buffer.mask(outcast);
      rank.communicator.barrier();
      round_trips(p, rank, buffer, without_outcast(rank.rank()));
      rank.communicator.barrier();
      std::vector<bool> const masked = buffer.masked();
      rank.communicator.barrier();  // whoever looks while a peer still masks it masks that peer again
      for (int peer = 0; peer < mask_ranks; ++peer) {
        if (masked[index(peer)]) buffer.mask(peer, false);
      }
      buffer.synchronize();
      rank.communicator.barrier();
      round_trips(p, rank, buffer, {});
      rank.communicator.barrier();
    }
  });
}

TEST_P(LowLatencyMasks, AreForgottenByAReset) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < 2; ++i) {
      round_trips(p, rank, buffer, {});
      rank.communicator.barrier();
      if (rank.rank() != outcast) buffer.mask(outcast);
      if (rank.rank() != outcast) round_trips(p, rank, buffer, without_outcast(rank.rank()));
      rank.communicator.barrier();
      buffer.reset();
      round_trips(p, rank, buffer, {});
    }
  });
}

// A rank that leaves the job: only its tokens are lost.
TEST_P(LowLatencyMasks, OfARankThatLeft) {
  // Freeing GPU memory waits for all kernels of the process, and holds up the others' launches meanwhile: of ranks
  // that are threads (docs/low-latency.md). Ranks that are processes: tests/multiprocess/low_latency.cpp.
  if (on_gpu()) GTEST_SKIP() << "ranks are threads of one CUDA context here";
  SlotProblem const p = make_slot_problem(base());
  std::atomic<int> ready{0};
  std::atomic<int> done{0};
  run_slots(
      base(),
      [&](SlotRank& rank) {
        LowLatencyOptions options = rank.options();
        options.mask_late_peers = true;
        LowLatencyBuffer buffer(rank.communicator, options);
        slot_round_trip(p, rank, buffer);
        ++ready;
        // It leaves when it has read all sums, and the others go on when they know that.
        check(wait_until([&] { return ready == mask_ranks; }), "the others hang");
        if (rank.rank() == outcast) return;
        round_trips(p, rank, buffer, without_outcast(rank.rank()));
        ++done;
        check(wait_until([&] { return done == mask_ranks - 1; }), "the others never ended");
      },
      Ending::alone);
}

// Not so short that others are late by it on a machine with much else to do.
std::chrono::milliseconds short_timeout() {
  return std::chrono::milliseconds{by_scale(3000, 2000)};
}

// What the outcast can count on in its first call after the others gave it up. A peer of another node has sent its
// rows by then, without waiting for credit; they count if they come before the word that it gave the outcast up.
Peers peers_of_late_outcast() {
  auto const nodes = played_nodes(mask_ranks);
  Peers peers = without_outcast(outcast);
  for (int peer = 0; peer < mask_ranks; ++peer)
    if (!nodes.empty() && nodes[index(peer)] != nodes[index(outcast)]) peers[index(peer)] = Presence::unsure;
  return peers;
}

// It comes when the others have given it up, finds itself alone, and after a reset all go on.
TEST_P(LowLatencyMasks, OfARankThatIsLate) {
  SlotProblem const p = make_slot_problem(base());
  std::atomic<int> done{0};
  EqualCalls more;
  run_slots(base(), [&](SlotRank& rank) {
    LowLatencyOptions options = rank.options();
    options.mask_late_peers = true;
    // It must not wait for those that gave it up: with this deadline it would, for longer than they wait for it.
    options.timeout = rank.rank() == outcast ? std::chrono::minutes{2} : short_timeout();
    LowLatencyBuffer buffer(rank.communicator, options);
    slot_round_trip(p, rank, buffer);
    rank.communicator.barrier();  // it has read all sums before the others give it up, and so wait for it no more
    if (rank.rank() == outcast)
      check(wait_until([&] { return done == mask_ranks - 1; }), "the others never gave up");
    Peers const reached = without_outcast(rank.rank());
    slot_round_trip(p, rank, buffer, rank.rank() == outcast ? peers_of_late_outcast() : reached);
    slot_round_trip(p, rank, buffer, reached);
    check_masked(buffer, reached);
    ++done;
    // Over nodes the word that it was given up may leave only when it takes something, and while they make calls.
    if (rank.rank() != outcast)
      more.until([&] { return done == mask_ranks; }, rank.rank(),
                 [&] { slot_round_trip(p, rank, buffer, reached); });
    check(wait_until([&] { return done == mask_ranks; }), "the others never ended");
    buffer.reset();
    round_trips(p, rank, buffer, {});
    rank.communicator.barrier();
  });
}

// Without mask_late_peers all ranks learn of it, the buffer refuses, and comes back by a reset.
TEST_P(LowLatencyMasks, ARankThatIsLateFailsTheBuffer) {
  SlotProblem const p = make_slot_problem(base());
  std::atomic<int> gave_up{0};
  run_slots(base(), [&](SlotRank& rank) {
    LowLatencyOptions options = rank.options();
    options.timeout = short_timeout();
    LowLatencyBuffer buffer(rank.communicator, options);
    slot_round_trip(p, rank, buffer);
    auto const call = [&] {
      SlotTrip trip(p, rank, buffer);
      (void)buffer.dispatch(trip.dispatch_args());
      buffer.synchronize();
    };
    if (rank.rank() == outcast)
      check(wait_until([&] { return gave_up == mask_ranks - 1; }), "the others never gave up");
    auto const error = expect_throw<Timeout>("a call that one rank is late for", call);
    check_equal(error.peer(), outcast, "peer of the error: ", error.what());
    ++gave_up;
    check(wait_until([&] { return gave_up == mask_ranks; }), "the others never gave up");
    (void)expect_throw<Timeout>("a call before the reset", call);
    rank.communicator.barrier();
    buffer.reset();
    round_trips(p, rank, buffer, {});
    rank.communicator.barrier();
  });
}

TEST_P(LowLatencyMasks, ARankThatLeftFailsTheBuffer) {
  // As in OfARankThatLeft; on one node kernels learn that the rank leaves before it frees anything.
  if (on_gpu() && !played_nodes(mask_ranks).empty()) GTEST_SKIP() << "ranks are threads of one CUDA context here";
  SlotProblem const p = make_slot_problem(base());
  std::atomic<int> ready{0};
  std::atomic<int> done{0};
  run_slot_buffers(
      base(),
      [&](SlotRank& rank, LowLatencyBuffer& buffer) {
        slot_round_trip(p, rank, buffer);
        ++ready;
        // It leaves when it has read all sums, and the others go on when they know that.
        check(wait_until([&] { return ready == mask_ranks; }), "the others hang");
        if (rank.rank() == outcast) return;
        auto const error = expect_throw<PeerLost>("a dispatch", [&] {
          SlotTrip trip(p, rank, buffer);
          (void)buffer.dispatch(trip.dispatch_args());
          buffer.synchronize();
        });
        check_equal(error.peer(), outcast, "peer of the error: ", error.what());
        ++done;
        check(wait_until([&] { return done == mask_ranks - 1; }), "the others never ended");
      },
      Ending::alone);
}

TEST_P(LowLatencyMasks, ResetWithoutAFailureDoesNoHarm) {
  SlotProblem const p = make_slot_problem(base());
  run_slot_buffers(base(), [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    for (int i = 0; i < 3; ++i) {
      buffer.reset();
      round_trips(p, rank, buffer, {});
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Layouts, LowLatencyMasks,
                         testing::Values(SlotLayout::expert_major, SlotLayout::rank_major),
                         [](auto const& one) { return std::string(name_of(one.param)); });

}  // namespace
}  // namespace switchyard::test
