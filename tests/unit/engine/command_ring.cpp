// The consumer's end of a command ring, against producers that do on the host what push() does on a GPU.
#include "engine/cuda/host/command_ring.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace switchyard::cuda {

namespace {

constexpr std::uint32_t places = 8;

class HostRing {
 public:
  CommandRing consumer() { return {words_.data(), &taken_, places}; }

  void push(std::uint64_t command) {
    std::uint64_t const number = next_.fetch_add(1);
    // Pairs with the release store in CommandRing::publish().
    while (number - std::atomic_ref(taken_).load(std::memory_order_acquire) >= places) {
      if (std::chrono::steady_clock::now() > ends_) return;  // its command is then missing
      std::this_thread::yield();
    }
    // Pairs with the acquire load in CommandRing::next().
    std::atomic_ref(words_[number % places]).store(word_of(command, number, places), std::memory_order_release);
  }

 private:
  alignas(64) std::vector<std::uint64_t> words_ = std::vector<std::uint64_t>(places, 0);
  alignas(64) std::uint64_t taken_ = 0;
  std::atomic<std::uint64_t> next_{0};
  std::chrono::steady_clock::time_point const ends_ = std::chrono::steady_clock::now() + std::chrono::seconds(60);
};

TEST(CommandRing, AnEmptyOneHasNothing) {
  HostRing ring;
  CommandRing consumer = ring.consumer();
  EXPECT_FALSE(consumer.next());
  ring.push(most_command);
  EXPECT_EQ(consumer.next(), most_command);
  EXPECT_FALSE(consumer.next());
}

// Laps come again after 255 of them; what lies in a place is always of the lap before.
TEST(CommandRing, ThroughAllLapsAndMore) {
  HostRing ring;
  CommandRing consumer = ring.consumer();
  for (std::uint64_t i = 0; i < 600 * places; ++i) {
    EXPECT_FALSE(consumer.next()) << i;
    ring.push(i * i & most_command);
    EXPECT_EQ(consumer.next(), i * i & most_command) << i;
  }
  EXPECT_EQ(consumer.taken(), 600 * places);
}

// One that is reserved, but not written yet, holds up those behind it: they keep their order.
TEST(CommandRing, APlaceThatIsNotWrittenYet) {
  std::vector<std::uint64_t> words(places, 0);
  std::uint64_t taken = 0;
  CommandRing consumer(words.data(), &taken, places);
  words[1] = word_of(7, 1, places);
  EXPECT_FALSE(consumer.next());
  words[0] = word_of(6, 0, places);
  EXPECT_EQ(consumer.next(), 6U);
  EXPECT_EQ(consumer.next(), 7U);
  EXPECT_FALSE(consumer.next());
}

TEST(CommandRing, SeveralProducersAtOnce) {
  constexpr std::uint64_t producers = 3;
  constexpr std::uint64_t each = 20000;
  HostRing ring;
  CommandRing consumer = ring.consumer();
  std::vector<std::jthread> threads;
  for (std::uint64_t who = 0; who < producers; ++who) {
    threads.emplace_back([&ring, who] {
      for (std::uint64_t i = 0; i < each; ++i) ring.push(who << 32 | i);
    });
  }
  auto const ends = std::chrono::steady_clock::now() + std::chrono::seconds(90);
  std::vector<std::uint64_t> next(producers, 0);
  for (std::uint64_t taken = 0; taken < producers * each;) {
    auto const command = consumer.next();
    if (!command) {
      ASSERT_LT(std::chrono::steady_clock::now(), ends) << taken << " commands came";
      std::this_thread::yield();
      continue;
    }
    std::uint64_t const who = *command >> 32;
    ASSERT_LT(who, producers);
    ASSERT_EQ(*command & 0xffff'ffffU, next[who]++);
    ++taken;
  }
  EXPECT_FALSE(consumer.next());
}

}  // namespace

}  // namespace switchyard::cuda
