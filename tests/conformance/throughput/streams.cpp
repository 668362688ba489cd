// Streams and events by themselves: order, errors, and nothing lost.
#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <stdexcept>
#include <thread>
#include <vector>

#include "switchyard/stream.hpp"

namespace switchyard::test {
namespace {

using namespace std::chrono_literals;

TEST(Streams, ADefaultEventIsComplete) {
  Event const event;
  EXPECT_TRUE(event.done());
  EXPECT_TRUE(event.wait_for(0ms));
  event.wait();
}

TEST(Streams, TasksRunInOrder) {
  Stream stream;
  std::vector<int> order;
  for (int i = 0; i < 1000; ++i) (void)stream.submit([&order, i] { order.push_back(i); });
  stream.synchronize();
  ASSERT_EQ(order.size(), 1000U);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(Streams, TwoStreamsOverlap) {
  Stream first;
  Stream second;
  std::latch both(2);  // each task waits until the other one runs too
  Event const a = first.submit([&] { both.arrive_and_wait(); });
  Event const b = second.submit([&] { both.arrive_and_wait(); });
  EXPECT_TRUE(a.wait_for(30s));
  EXPECT_TRUE(b.wait_for(30s));
}

TEST(Streams, AnEventHoldsAnotherStreamBack) {
  Stream first;
  Stream second;
  std::latch gate(1);
  std::atomic<bool> early{false};
  std::atomic<bool> first_done{false};
  Event const event = first.submit([&] {
    gate.wait();
    first_done = true;
  });
  second.wait(event);
  Event const after = second.submit([&] { early = !first_done; });
  EXPECT_FALSE(event.done());
  EXPECT_FALSE(after.wait_for(20ms));
  gate.count_down();
  after.wait();
  EXPECT_FALSE(early);
  EXPECT_TRUE(event.done());
}

TEST(Streams, ARecordedEventCoversWhatCameBefore) {
  Stream stream;
  std::latch gate(1);
  std::latch late_gate(1);
  std::atomic<int> count{0};
  (void)stream.submit([&] { gate.wait(), ++count; });
  (void)stream.submit([&] { ++count; });
  Event const mark = stream.record();
  Event const late = stream.submit([&] { late_gate.wait(); });
  EXPECT_FALSE(mark.done());
  gate.count_down();
  mark.wait();
  EXPECT_EQ(count, 2);
  EXPECT_FALSE(late.done());
  late_gate.count_down();
  late.wait();
}

TEST(Streams, ARecordOfAnIdleStreamCompletes) {
  Stream stream;
  EXPECT_TRUE(stream.record().wait_for(30s));
}

TEST(Streams, AnErrorEndsItsTaskOnly) {
  Stream stream;
  Event const bad = stream.submit([] { throw std::runtime_error("bad task"); });
  std::atomic<bool> ran{false};
  Event const good = stream.submit([&] { ran = true; });
  good.wait();
  EXPECT_TRUE(ran);
  EXPECT_TRUE(bad.done());
  for (int i = 0; i < 2; ++i) EXPECT_THROW(bad.wait(), std::runtime_error);
  EXPECT_THROW((void)bad.wait_for(1s), std::runtime_error);
}

TEST(Streams, AFailedEventCountsAsComplete) {
  Stream first;
  Stream second;
  Event const bad = first.submit([] { throw std::runtime_error("bad task"); });
  second.wait(bad);
  EXPECT_TRUE(second.submit([] {}).wait_for(30s));
}

TEST(Streams, RunKeepsTheOrderAndUsesTheCallingThreadWhenIdle) {
  Stream stream;
  std::atomic<int> count{0};
  for (int i = 0; i < 10; ++i) (void)stream.submit([&] { ++count; });
  int seen = 0;
  stream.run([&] { seen = count; });
  EXPECT_EQ(seen, 10);
  stream.synchronize();
  std::thread::id ran_in;
  stream.run([&] { ran_in = std::this_thread::get_id(); });
  EXPECT_EQ(ran_in, std::this_thread::get_id());
  EXPECT_THROW(stream.run([] { throw std::runtime_error("bad task"); }), std::runtime_error);
  stream.run([&] { ++count; });
  EXPECT_EQ(count, 11);
}

TEST(Streams, RunFromATaskOfTheSameStream) {
  Stream stream;
  int count = 0;
  stream.submit([&] { stream.run([&] { ++count; }); }).wait();
  stream.run([&] { stream.run([&] { ++count; }); });
  EXPECT_EQ(count, 2);
}

// Nothing that a task asks of its own stream may wait for the task itself.
TEST(Streams, ATaskMayUseItsOwnStream) {
  Stream stream;
  Stream other;
  std::atomic<bool> ran{false};
  Event const outside = other.submit([&] { ran = true; });
  Event const all = stream.submit([&] {
    stream.synchronize();
    stream.wait(outside);
    EXPECT_TRUE(ran);
    other.run([&] { stream.run([&] { stream.synchronize(); }); });
  });
  EXPECT_TRUE(all.wait_for(30s));
}

TEST(Streams, AVeryLongTimeoutIsLong) {
  Stream stream;
  std::latch gate(1);
  Event const event = stream.submit([&] { gate.wait(); });
  std::thread opener([&] {
    std::this_thread::sleep_for(5ms);
    gate.count_down();
  });
  EXPECT_TRUE(event.wait_for(std::chrono::milliseconds::max()));
  opener.join();
}

TEST(Streams, TheLastCopyDrainsTheQueue) {
  std::atomic<int> count{0};
  {
    Stream stream;
    Stream const copy = stream;
    for (int i = 0; i < 100; ++i) (void)stream.submit([&] { ++count; });
  }
  EXPECT_EQ(count, 100);
}

TEST(Streams, EventsOutliveTheirStream) {
  Event event;
  {
    Stream stream;
    event = stream.submit([] { throw std::runtime_error("bad task"); });
  }
  EXPECT_TRUE(event.done());
  EXPECT_THROW(event.wait(), std::runtime_error);
}

TEST(Streams, AChainAcrossManyStreams) {
  std::vector<Stream> streams(8);
  std::vector<int> order;  // only one task runs at a time, if events order them
  Event last;
  for (int i = 0; i < 400; ++i) {
    Stream& stream = streams[static_cast<std::size_t>(i) % streams.size()];
    stream.wait(last);
    last = stream.submit([&order, i] { order.push_back(i); });
  }
  last.wait();
  ASSERT_EQ(order.size(), 400U);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(Streams, ManyThreadsSubmit) {
  Stream stream;
  int count = 0;  // the stream alone touches it
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) (void)stream.submit([&] { ++count; });
    });
  }
  for (std::thread& thread : threads) thread.join();
  stream.synchronize();
  EXPECT_EQ(count, 800);
}

}  // namespace
}  // namespace switchyard::test
