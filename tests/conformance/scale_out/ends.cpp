// How ports come to rest: drained in a reset, or left by ranks that go at different times.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "conformance/scale_out/calls.hpp"

namespace switchyard::test {
namespace {

using scale_out::Notice;
using scale_out::Port;
using scale_out::PortSizes;

PortSizes const usual{.letter_bytes = 50, .slot_bytes = 300, .slots = 3, .send_slots = 4};
NodeNames const nodes{"a", "a", "b", "c", "c"};
// What a port says that has waited out its patience.
constexpr char const* waited_in_vain = "not taken after";

class PortEnds : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (auto const why = choose(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
};

// That the rank has failed. Who says so waits until its neighbours have it, so each takes what comes until all have
// said it.
void fail_together(Port& port, std::uint64_t epoch, std::atomic<int>& said, int all) {
  port.say({.kind = Notice::Kind::failed, .epoch = epoch});
  ++said;
  poll_until(
      port, [&] { return said >= all; }, "the others to fail");
}

// Calls, then one that ends anywhere, with letters, chunks, credits and notices under way; and again.
TEST_P(PortEnds, ADrainAfterAnAbandonedCall) {
  std::uint64_t const seed = fresh_seed();
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", seed));
  std::atomic<int> said{0};
  run_ports(nodes, usual, [&](Port& port, Job& job) {
    Caller caller(port, job, {.seed = seed, .sizes = usual});
    std::uint64_t epoch = 0;
    int failures = 0;
    for (int round = 0; round < by_scale(4, 15); ++round) {
      for (int calls = round % 3; calls > 0; --calls) caller.call(++epoch);
      caller.abandoned_call(++epoch);
      if (round % 2 == 0) fail_together(port, epoch, said, ++failures * job.size());
      port.say({.kind = Notice::Kind::held_up, .epoch = epoch});
      job.barrier();
      epoch += static_cast<std::uint64_t>(round) * 1000;  // as if calls had been made elsewhere
      port.drain(epoch);
      check(!port.heard(), "a notice of before");
      check(port.all_sent(), "something under way");
      job.barrier();
    }
    caller.call(++epoch);
  });
}

// Nothing was ever sent.
TEST_P(PortEnds, ADrainOfNothing) {
  run_ports(nodes, usual, [&](Port& port, Job& job) {
    port.drain(0);
    job.barrier();
    exchange_letters(port, 1);
    job.barrier();
    port.drain(1);
    job.barrier();
    exchange_letters(port, 2);
  });
}

// Who is given up gets nothing any more, and loses nothing of others; a drain ends that.
TEST_P(PortEnds, ANeighbourThatIsGivenUp) {
  std::atomic<bool> sent{false};
  run_ports({"a", "b"}, usual, [&](Port& port, Job& job) {
    port.begin(1);
    if (job.rank() == 0) {
      port.give_up(0);
      check(port.given_up(0), "given up");
      check(!port.room_for(0), "room at a neighbour that is given up");
      port.say({.kind = Notice::Kind::held_up, .epoch = 1, .rank = 1});
      std::optional<Port::Chunk> chunk;
      poll_until(
          port, [&] { return (chunk = port.next_chunk(0)).has_value(); }, "what it has sent");
      port.give_back(*chunk);
      poll_until(
          port, [&] { return sent.load(); }, "the neighbour");
    } else {
      auto const room = port.room_for(0).value();
      port.send(room, 1);
      poll_until(
          port, [&] { return port.has_left(room); }, "the chunk to leave");
      check(!port.heard(), "a notice of who has given this rank up");
      sent = true;
    }
    job.barrier();
    port.drain(1);
    job.barrier();
    check(!port.given_up(0), "given up after a drain");
    exchange_letters(port, 2);
  });
}

// Each rank's port ends when its own calls have: nobody loses what it still has to get.
TEST_P(PortEnds, RanksLeaveAtDifferentTimes) {
  PortSizes const large{.letter_bytes = 50, .slot_bytes = 200000, .slots = 4, .send_slots = 8};
  for (int round = 0; round < by_scale(2, 6); ++round) {
    run_jobs(nodes, [&](std::shared_ptr<Job> const& job) {
      {
        Port port(job, large);
        Caller caller(port, *job, {.seed = static_cast<std::uint64_t>(round), .sizes = large, .most_chunks = 8});
        for (std::uint64_t epoch = 1; epoch <= 2; ++epoch) caller.call(epoch);
      }
      job->barrier();
    });
  }
}

// Chunks that their receiver needs for nothing, and that come after it has looked for the last time, keep nobody:
// it has said farewell. Where faults delay writes for many polls, a farewell may not leave in the time that it has,
// and the patience of who waits for it is all there is.
TEST_P(PortEnds, WithChunksThatNobodyTakes) {
  testing::internal::CaptureStderr();
  run_jobs(nodes, [&](std::shared_ptr<Job> const& job) {
    auto port = std::make_unique<Port>(job, usual);
    exchange_letters(*port, 1);
    job->barrier();
    if (job->rank() % 2 == 0) port.reset();
    job->barrier();
    if (port) {
      if (auto const room = port->room_for(0)) port->send(*room, 1);
      port.reset();
    }
    job->barrier();
  });
  std::string const said = testing::internal::GetCapturedStderr();
  if (GetParam().faults == 0) {
    EXPECT_THAT(said, testing::Not(testing::HasSubstr(waited_in_vain)));
  }
}

// A neighbour that is there, and neither takes what it was sent nor says farewell, keeps a port for its patience;
// then a line in the log says who it was.
TEST(PortPatience, HasAnEnd) {
  ASSERT_EQ(choose({}), "");
  std::atomic<bool> ended{false};
  testing::internal::CaptureStderr();
  run_jobs(
      {"a", "b"},
      [&](std::shared_ptr<Job> const& job) {
        auto port = std::make_unique<Port>(job, usual);
        port->begin(1);
        if (job->rank() == 0) {
          port->send(port->room_for(0).value(), 1);
          port.reset();
          ended = true;
        }
        while (!ended) std::this_thread::sleep_for(std::chrono::milliseconds{1});
      },
      std::chrono::seconds{2});
  std::string const said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, testing::HasSubstr("rank 0: expected rank 1 (node 1) to take what it was sent, seen 1 chunks"));
  EXPECT_THAT(said, testing::HasSubstr(waited_in_vain));
}

// Ranks that throw in the midst of a call hang nobody and leave nothing behind.
TEST_P(PortEnds, InTheMidstOfACall) {
  struct Planned : std::exception {};
  for (int round = 0; round < by_scale(2, 6); ++round) {
    run_jobs(nodes, [&](std::shared_ptr<Job> const& job) {
      try {
        Port port(job, usual);
        Caller caller(port, *job, {.seed = static_cast<std::uint64_t>(round), .sizes = usual});
        caller.call(1);
        job->barrier();
        caller.abandoned_call(2);
        throw Planned();
      } catch (Planned const&) {
      } catch (PeerLost const& error) {
        check(error.peer() >= 0, "a neighbour that has gone already: ", error.what());
      }
      job->barrier();
      Port again(job, usual);
      exchange_letters(again, 1);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, PortEnds,
                         testing::Values(Way{"loopback", 0}, Way{"loopback", 2}, Way{"loopback", 7},
                                         Way{"loopback", 11}, Way{"libfabric", 0}, Way{"libfabric", 14}));

class PortLoss : public PortEnds {};

// A rank that has left the job is seen by its neighbours. Writing to it fails, if the transport says anything.
TEST_P(PortLoss, ANeighbourThatLeaves) {
  std::atomic<int> seen{0};
  run_jobs({"a", "a", "b", "b", "c"}, [&](std::shared_ptr<Job> const& job) {
    auto port = std::make_unique<Port>(job, usual);
    exchange_letters(*port, 1);
    if (job->rank() == 2) return;
    int const lost = port->number_of(2);
    for (int neighbour = 0; neighbour < static_cast<int>(port->neighbours().size()); ++neighbour)
      if (neighbour != lost)
        check(!port->is_lost(neighbour), "rank ", port->neighbours()[static_cast<std::size_t>(neighbour)].rank);
    check(!port->is_lost(-1) && !port->is_lost(100), "neighbours that there are not");
    if (lost >= 0) {
      check(!job->is_lost(job->rank()), "the own rank");
      poll_until(
          *port, [&] { return port->is_lost(lost); }, "the loss to be seen");
      check(job->is_lost(2), "the job");
    }
    ++seen;
    while (seen < 4) std::this_thread::yield();
  });
}

class PortLossWithAnEnd : public PortEnds {};

TEST_P(PortLossWithAnEnd, WritesToOneThatHasGone) {
  std::atomic<bool> gone{false};
  run_jobs({"a", "b"}, [&](std::shared_ptr<Job> const& job) {
    {
      Port port(job, usual);
      exchange_letters(port, 1);
      if (job->rank() == 0) {
        poll_until(
            port, [&] { return gone.load(); }, "the other to go");
        port.begin(2);
        port.send_letter(0, 5);
        auto const error = expect_throw<PeerLost>("a letter to nobody", [&] {
          poll_until(
              port, [] { return false; }, "the loss");
        });
        check_equal(error.peer(), 1, "peer of the error: ", error.what());
        check_equal(error.rank(), 0, "rank of the error");
        check_names(error, {"rank 1 (node 1)"});
        expect_throw<PeerLost>("the next poll", [&] { port.poll(); });
      }
    }
    if (job->rank() == 1) gone = true;
    while (!gone) std::this_thread::yield();
    job->barrier();
  });
}

// Who waits for others in a drain says who does not come.
TEST_P(PortLoss, ADrainWithoutANeighbour) {
  run_jobs({"a", "b"}, [&](std::shared_ptr<Job> const& job) {
    Port port(job, usual);
    exchange_letters(port, 1);
    if (job->rank() == 1) return;
    auto const error = expect_throw<PeerLost>("a drain", [&] { port.drain(1); });
    check_equal(error.peer(), 1, "peer of the error: ", error.what());
  });
}

INSTANTIATE_TEST_SUITE_P(All, PortLoss,
                         testing::Values(Way{"loopback", 0}, Way{"loopback", 2}, Way{"libfabric", 0}));
// Over TCP a write to nobody may end in silence.
INSTANTIATE_TEST_SUITE_P(All, PortLossWithAnEnd, testing::Values(Way{"loopback", 0}, Way{"loopback", 2}));

}  // namespace
}  // namespace switchyard::test
