// A neighbour that breaks the rules: its writes are refused by name, and reach nothing that is not its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>

#include "conformance/scale_out/ports.hpp"
#include "scale_out/cards.hpp"
#include "scale_out/port_layout.hpp"
#include "scale_out/proofs.hpp"
#include "scale_out/wires.hpp"
#include "support/meeting.hpp"

namespace switchyard::test {
namespace {

using scale_out::Channel;
using scale_out::Outgoing;
using scale_out::Port;
using scale_out::PortLayout;
using scale_out::PortSizes;
using scale_out::Proofs;
using scale_out::Wires;

PortSizes const of_two{.letter_bytes = 8, .slot_bytes = 64, .slots = 2, .send_slots = 2};

// Takes part in the making of ports as rank 1, and then writes whatever it likes.
class Stranger {
 public:
  // What it shows as a proof of who it is, from what would be right; nothing: it shows none.
  using Proof = std::function<std::optional<Mac>(Job&, Proofs const&)>;

  explicit Stranger(Job& job, Proof const& proof = right)
      : neighbours_(scale_out::neighbours_of(job.topology(), job.rank())) {
    scale_out::exchange_cards(job, [](MessageWriter& message) {
      message.put(std::uint32_t{2});
      message.put(std::uint64_t{of_two.letter_bytes});
      message.put(std::uint64_t{of_two.slot_bytes});
      message.put(std::int32_t{of_two.slots});
      message.put(std::int32_t{of_two.send_slots});
      scale_out::put_back_end(message);
    });
    scale_out::EndpointTerms terms;
    terms.rank = job.rank();
    terms.max_writes = 64;
    terms.max_arrivals = 64;
    terms.memory_bytes = memory_.size();
    wires_ = std::make_unique<Wires>(scale_out::BackEnd{.loopback = true}, terms, neighbours_, memory_);
    Proofs proofs(job, neighbours_);
    auto cards = scale_out::exchange_cards(job, [&](MessageWriter& message) {
      proofs.put_card(message);
      wires_->put_card(message);
    });
    scale_out::exchange_cards(job, [&](MessageWriter& /*nothing*/) {
      proofs.read_cards(cards.readers);
      wires_->connect(cards.readers);
    });
    scale_out::exchange_cards(job, [&](MessageWriter& /*nothing*/) {
      if (auto const shown = proof(job, proofs)) show(*shown);
    });
  }

  static std::optional<Mac> right(Job& /*job*/, Proofs const& proofs) { return proofs.own(0, 0); }

  void show(Mac const& proof) {
    std::ranges::copy(proof, memory_.begin());
    write({.channel = Channel::proof,
           .bytes = proof.size(),
           .into = PortLayout(of_two, 1).notice_in(0, scale_out::proof_place_of(0).notice).offset});
  }

  void write(Outgoing const& outgoing) {
    wires_->post(outgoing);
    std::vector<scale_out::WireEvent> events;
    while (wires_->open(outgoing.channel) > 0) wires_->poll(events);
  }

 private:
  std::array<std::byte, 4096> memory_{};
  std::vector<scale_out::Neighbour> neighbours_;
  std::unique_ptr<Wires> wires_;
};

struct Crime {
  std::string name;
  std::vector<Outgoing> writes;
  std::string expected;
};

Outgoing a(Channel channel, int slot, std::uint64_t epoch) {
  return {.channel = channel, .slot = slot, .epoch = epoch};
}

TEST(PortStrangers, AreNamed) {
  ASSERT_EQ(choose({}), "");
  std::vector<Crime> const crimes{
      {"a chunk in no slot", {a(Channel::chunk, 2, 1)}, "slots"},
      {"two chunks in a slot", {a(Channel::chunk, 0, 1), a(Channel::chunk, 0, 1)}, "slots"},
      {"two early chunks in a slot", {a(Channel::chunk, 0, 2), a(Channel::chunk, 0, 3)}, "slots"},
      {"two letters", {a(Channel::letter, 1, 1), a(Channel::letter, 1, 1)}, "one letter"},
      {"a letter in the wrong place", {a(Channel::letter, 0, 1)}, "one letter"},
      {"a credit for nothing", {a(Channel::credit, 0, 0)}, "a credit"},
      {"a credit for no slot", {a(Channel::credit, 1023, 1)}, "a credit"},
      {"a notice in no place", {a(Channel::notice, 3, 0)}, "a place"},
      {"two notices in one place", {a(Channel::notice, 0, 0), a(Channel::notice, 0, 0)}, "notices in places"},
      {"two farewells", {a(Channel::farewell, 0, 0), a(Channel::farewell, 0, 0)}, "farewell"},
      {"a notice taken that nobody said", {a(Channel::notice_taken, 0, 0)}, "a notice taken"},
      {"a second proof", {a(Channel::proof, 0, 0)}, "one proof"},
      {"a proof of an endpoint that it has not got", {a(Channel::proof, 1, 0)}, "one proof"},
  };
  for (Crime const& crime : crimes) {
    SCOPED_TRACE(crime.name);
    run_jobs({"a", "b"}, [&](std::shared_ptr<Job> const& job) {
      if (job->rank() == 1) {
        Stranger stranger(*job);
        for (Outgoing const& write : crime.writes) stranger.write(write);
        job->barrier();
        return;
      }
      Port port(job, of_two);
      port.begin(1);
      auto const error = expect_throw<SystemError>(crime.name, [&] {
        poll_until(
            port, [] { return false; }, "an error");
      });
      check_equal(error.peer(), 1, "peer of the error");
      check_names(error, {"rank 1 (node 1)", crime.expected});
      job->barrier();
    });
  }
}

std::optional<Mac> another_challenge(Job& job, Proofs const& /*right*/) {
  auto const neighbours = scale_out::neighbours_of(job.topology(), job.rank());
  return Proofs(job, neighbours).own(0, 0);
}

// Who is found at a neighbour's address, and does not know what it does, fails the port, on all ranks.
TEST(PortStrangers, DoNotProveWhoTheyAre) {
  ASSERT_EQ(choose({}), "");
  std::vector<std::pair<std::string, Stranger::Proof>> const proofs{
      {"zeros", [](Job&, Proofs const&) { return Mac{}; }},
      {"of another endpoint", [](Job&, Proofs const& own) { return own.own(0, 1); }},
      {"by another token",
       [](Job&, Proofs const&) { return Key::of_token("another").mac({test::bytes_of("a challenge")}); }},
      {"by another challenge", another_challenge},
  };
  for (auto const& [name, proof] : proofs) {
    SCOPED_TRACE(name);
    run_jobs({"a", "b"}, [&, &name = name, &proof = proof](std::shared_ptr<Job> const& job) {
      auto const error = expect_throw<SystemError>(name, [&] {
        if (job->rank() == 1) {
          Stranger const stranger(*job, proof);
        } else {
          Port const port(job, of_two);
        }
      });
      check_names(error, {"rank 1 (node 1)", "proof"});
    });
  }
}

TEST(PortStrangers, SayNothing) {
  ASSERT_EQ(choose({}), "");
  auto const silent = [](Job&, Proofs const&) { return std::optional<Mac>(); };
  run_jobs(
      {"a", "b"},
      [&](std::shared_ptr<Job> const& job) {
        auto const error = expect_throw<Timeout>("a port", [&] {
          if (job->rank() == 1) {
            Stranger const stranger(*job, silent);
          } else {
            Port const port(job, of_two);
          }
        });
        check_names(error, {"rank 1 (node 1)", "firewall"});
      },
      std::chrono::seconds{6});
}

TEST(PortStrangers, BytesThatAreNoNotice) {
  ASSERT_EQ(choose({}), "");
  run_jobs({"a", "b"}, [&](std::shared_ptr<Job> const& job) {
    if (job->rank() == 1) {
      Stranger stranger(*job);
      stranger.write(a(Channel::notice, 0, 0));
      job->barrier();
      return;
    }
    Port port(job, of_two);
    port.begin(1);
    auto const error = expect_throw<SystemError>("no notice", [&] {
      poll_until(
          port, [&] { return port.heard().has_value(); }, "an error");
    });
    check_names(error, {"rank 1 (node 1)", "a notice"});
    job->barrier();
  });
}

}  // namespace
}  // namespace switchyard::test
