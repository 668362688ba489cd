// A neighbour that breaks the rules: its writes are refused by name, and reach nothing that is not its own.
#include <gtest/gtest.h>

#include <array>

#include "conformance/scale_out/ports.hpp"
#include "scale_out/cards.hpp"
#include "scale_out/port_layout.hpp"
#include "scale_out/wires.hpp"

namespace switchyard::test {
namespace {

using scale_out::Channel;
using scale_out::Outgoing;
using scale_out::Port;
using scale_out::PortSizes;
using scale_out::Wires;

PortSizes const of_two{.letter_bytes = 8, .slot_bytes = 64, .slots = 2, .send_slots = 2};

// Takes part in the making of ports as rank 1, and then writes whatever it likes.
class Stranger {
 public:
  explicit Stranger(Job& job) : neighbours_(scale_out::neighbours_of(job.topology(), job.rank())) {
    scale_out::exchange_cards(job, [](MessageWriter& message) {
      message.put(std::uint32_t{1});
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
    auto cards = scale_out::exchange_cards(job, [&](MessageWriter& message) { wires_->put_card(message); });
    scale_out::exchange_cards(job, [&](MessageWriter& /*nothing*/) { wires_->connect(cards.readers); });
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
