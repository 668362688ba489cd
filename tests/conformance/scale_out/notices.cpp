// What ranks tell their neighbours beside calls.
#include <gtest/gtest.h>

#include <atomic>

#include "conformance/scale_out/calls.hpp"

namespace switchyard::test {
namespace {

using scale_out::Notice;
using scale_out::Port;
using scale_out::PortSizes;

PortSizes const small{.letter_bytes = 8, .slot_bytes = 64, .slots = 2, .send_slots = 2};

class PortNotices : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (auto const why = choose(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
};

Notice hear(Port& port) {
  std::optional<Notice> notice;
  poll_until(
      port, [&] { return (notice = port.heard()).has_value(); }, "a notice");
  return *notice;
}

TEST_P(PortNotices, ReachAllNeighbours) {
  std::atomic<int> heard{0};
  run_ports({"a", "b", "c", "c"}, small, [&](Port& port, Job& job) {
    exchange_letters(port, 1);
    if (job.rank() == 0) {
      port.say({.kind = Notice::Kind::held_up,
                .epoch = 7,
                .rank = 3,
                .peer = 2,
                .phase = "dispatch/arrive",
                .text = std::string(600, 'x') + "y"});
      poll_until(
          port, [&] { return heard == 3; }, "all to hear");
      return;
    }
    Notice const notice = hear(port);
    check(notice.kind == Notice::Kind::held_up, "kind");
    check_equal(notice.epoch, 7U, "epoch");
    check_equal(notice.from, port.number_of(0), "who says it");
    check_equal(notice.rank, 3, "rank");
    check_equal(notice.peer, 2, "peer");
    check_equal(notice.phase, "dispatch/arrive", "phase");
    check(notice.text.size() > 300 && notice.text == std::string(notice.text.size(), 'x'), "text: ", notice.text);
    ++heard;
    poll_until(
        port, [&] { return heard == 3; }, "all to hear");
    check(!port.heard(), "a notice twice");
  });
}

// Who says more than a neighbour reads is not heard with all of it, but what is heard is whole; and a failure
// always has a place left.
TEST_P(PortNotices, ManyAtOnce) {
  std::atomic<bool> said{false};
  std::atomic<bool> heard{false};
  run_ports({"a", "b"}, small, [&](Port& port, Job& job) {
    exchange_letters(port, 1);
    if (job.rank() == 0) {
      for (int i = 0; i < 100; ++i) port.say({.epoch = static_cast<std::uint64_t>(i), .text = std::to_string(i)});
      port.say(
          {.kind = Notice::Kind::failed, .epoch = 100, .code = ErrorCode::peer_lost, .rank = 0, .text = "the end"});
      said = true;
      poll_until(
          port, [&] { return heard.load(); }, "the neighbour");
      return;
    }
    bool failed = false;
    int others = 0;
    while (!failed || others < 2) {
      Notice const notice = hear(port);
      failed = failed || notice.kind == Notice::Kind::failed;
      if (notice.kind == Notice::Kind::failed) {
        check(notice.code == ErrorCode::peer_lost, "code");
        check_equal(notice.text, "the end", "text");
      } else {
        check_equal(notice.text, std::to_string(notice.epoch), "text");
        ++others;
      }
    }
    poll_until(
        port, [&] { return said.load(); }, "the neighbour");
    heard = true;
  });
}

TEST_P(PortNotices, DisturbNoCall) {
  PortSizes const sizes{.letter_bytes = 50, .slot_bytes = 300, .slots = 2, .send_slots = 2};
  run_ports({"a", "b", "b"}, sizes, [&](Port& port, Job& job) {
    Caller caller(port, job, {.seed = 5, .sizes = sizes});
    for (std::uint64_t epoch = 1; epoch <= static_cast<std::uint64_t>(by_scale(6, 20)); ++epoch) {
      port.say({.epoch = epoch, .text = std::to_string(epoch)});
      caller.call(epoch);
      while (auto const notice = port.heard()) check_equal(notice->text, std::to_string(notice->epoch), "text");
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, PortNotices,
                         testing::Values(Way{"loopback", 0}, Way{"loopback", 2}, Way{"loopback", 9},
                                         Way{"libfabric", 0}));

}  // namespace
}  // namespace switchyard::test
