// Waits on an endpoint end: with what was waited for, or by their deadline, or because the caller wants it.
#include "transport/patience.hpp"

#include <gmock/gmock.h>

#include "switchyard/interrupt.hpp"

namespace switchyard::test {
namespace {

using transport::Endpoint;
using transport::Event;
using transport::Patience;
using transport::Peer;
using transport::Write;
using namespace std::chrono_literals;

// Is busy until it was polled often enough; each poll gives an event.
class BusyEndpoint final : public Endpoint {
 public:
  explicit BusyEndpoint(int polls, bool gives_events = true) : polls_(polls), gives_events_(gives_events) {}

  [[nodiscard]] transport::Capabilities const& capabilities() const noexcept override { return capabilities_; }
  [[nodiscard]] transport::Opaque address() const override { return {}; }
  Peer add_peer(transport::Opaque const& /*address*/, std::string /*name*/) override { return Peer{0}; }
  transport::PeerRegion add_region(Peer /*peer*/, transport::Opaque const& /*key*/) override { return {}; }
  std::unique_ptr<transport::Region> register_memory(std::span<std::byte> /*memory*/) override { return nullptr; }
  Posted post(Write const& /*write*/) override { return polls_ > 0 ? Posted::busy : Posted::yes; }
  std::size_t poll(std::span<Event> events) override {
    --polls_;
    if (!gives_events_) return 0;
    events[0] = {.kind = Event::Kind::arrived, .immediate = 7};
    return 1;
  }
  [[nodiscard]] std::string reason(Peer /*peer*/) const override { return {}; }

 private:
  transport::Capabilities capabilities_;
  int polls_;
  bool gives_events_;
};

Patience patience(std::chrono::milliseconds timeout) {
  return {
      .deadline = Deadline(timeout), .peer = "rank 5 on node 1", .facts = {.rank = 0, .peer = 5, .phase = "send"}};
}

TEST(Patience, PostsWhenThereIsRoomAndHandsOnWhatComesMeanwhile) {
  BusyEndpoint endpoint(3);
  int events = 0;
  transport::post_by(endpoint, {}, patience(30s),
                     [&](Event const& event) { events += event.immediate == 7 ? 1 : 0; });
  EXPECT_EQ(events, 3);
}

TEST(Patience, NamesThePeerThatIsLate) {
  for (bool const gives_events : {false, true}) {  // a stream of events does not put it off
    BusyEndpoint endpoint(1 << 30, gives_events);
    try {
      transport::post_by(endpoint, {}, patience(20ms), [](Event const&) {});
      FAIL() << "nothing was thrown";
    } catch (Timeout const& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("rank 5 on node 1"));
      EXPECT_EQ(error.peer(), 5);
      EXPECT_EQ(error.phase(), "send");
    }
  }
}

TEST(Patience, PollsUntilWhatIsWaitedForIsThere) {
  BusyEndpoint endpoint(0);
  int events = 0;
  transport::poll_until(
      endpoint, [&] { return events == 5; }, "five events", patience(30s), [&](Event const&) { ++events; });
  EXPECT_EQ(events, 5);
  EXPECT_THROW(transport::poll_until(
                   endpoint, [] { return false; }, "nothing", patience(20ms), [](Event const&) {}),
               Timeout);
}

TEST(Patience, EndsWhenItsCallerWants) {
  BusyEndpoint endpoint(1 << 30, false);
  InterruptScope const scope([]() noexcept { return true; });
  EXPECT_THROW(transport::post_by(endpoint, {}, patience(30s), [](Event const&) {}), SystemError);
}

TEST(Patience, WhatAHandlerThrowsEndsTheWait) {
  BusyEndpoint endpoint(1 << 30);
  EXPECT_THROW(transport::post_by(endpoint, {}, patience(30s), [](Event const&) { throw PeerLost("it is gone"); }),
               PeerLost);
}

}  // namespace
}  // namespace switchyard::test
