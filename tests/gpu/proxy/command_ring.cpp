// Commands of kernels arrive at the host: each once, those of a thread in its order, and with what was written
// before.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "engine/cuda/host/command_ring_memory.hpp"
#include "gpu/proxy/push.hpp"
#include "gpu/throughput/device_rank.hpp"

namespace switchyard::cuda {

namespace {

struct Pinned {
  explicit Pinned(std::size_t words) {
    void* memory = nullptr;
    test::check_cuda(cudaHostAlloc(&memory, words * sizeof(std::uint64_t), cudaHostAllocMapped), "pinned memory");
    host = static_cast<std::uint64_t*>(memory);
    for (std::size_t i = 0; i < words; ++i) host[i] = 0;
  }
  ~Pinned() { cudaFreeHost(host); }
  Pinned(Pinned const&) = delete;
  Pinned& operator=(Pinned const&) = delete;
  std::uint64_t* host = nullptr;
};

class CommandRingOnGpu : public ::testing::TestWithParam<PushLoad> {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "there is no GPU";
    void* memory = nullptr;
    test::check_cuda(cudaMalloc(&memory, sizeof *gave_up_), "cudaMalloc");
    gave_up_ = static_cast<std::uint32_t*>(memory);
    test::check_cuda(cudaMemset(gave_up_, 0, sizeof *gave_up_), "cudaMemset");
  }
  void TearDown() override { cudaFree(gave_up_); }

  std::uint32_t given_up() {
    std::uint32_t number = 0;
    test::check_cuda(cudaDeviceSynchronize(), "the kernel");
    test::check_cuda(cudaMemcpy(&number, gave_up_, sizeof number, cudaMemcpyDeviceToHost), "cudaMemcpy");
    return number;
  }

  std::uint32_t* gave_up_ = nullptr;
};

// `rest`: how long the consumer is away after each command, so that the ring fills up.
void run(PushLoad const& load, std::uint32_t places, std::chrono::microseconds rest, std::uint32_t* gave_up) {
  auto const threads = static_cast<std::size_t>(load.blocks * load.pushers);
  std::size_t const total = threads * load.commands;
  CommandRingMemory const memory(places);
  Pinned const notes(total);
  test::check_cuda(launch_push_all(memory.producers(), load, {notes.host, gave_up, 20'000'000'000}), "launch");
  CommandRing ring = memory.consumer();
  std::vector<std::uint64_t> next(threads, 0);
  auto const ends = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  for (std::size_t taken = 0; taken < total;) {
    ASSERT_LT(std::chrono::steady_clock::now(), ends) << taken << " of " << total << " commands came";
    auto const command = ring.next();
    if (!command) continue;
    std::uint64_t const who = *command >> 32;
    std::uint64_t const number = *command & 0xffff'ffffU;
    ASSERT_LT(who, next.size());
    ASSERT_EQ(number, next[who]++) << "of thread " << who;
    ASSERT_EQ(std::atomic_ref(notes.host[who * load.commands + number]).load(std::memory_order_relaxed), ~*command);
    ++taken;
    if (rest.count() > 0) std::this_thread::sleep_for(rest);
  }
  test::check_cuda(cudaDeviceSynchronize(), "the kernel");
  EXPECT_FALSE(ring.next()) << "a command came twice, or one that nobody pushed";
}

TEST_P(CommandRingOnGpu, EachComesOnceWithWhatWasWrittenBefore) {
  run(GetParam(), 1024, {}, gave_up_);
  EXPECT_EQ(given_up(), 0U);
}

TEST_P(CommandRingOnGpu, ThroughARingThatIsFull) {
  PushLoad load = GetParam();
  load.commands = (load.commands + 9) / 10;
  run(load, 8, std::chrono::microseconds(1), gave_up_);
  EXPECT_EQ(given_up(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Loads, CommandRingOnGpu,
                         ::testing::Values(PushLoad{1, 1, 20000}, PushLoad{1, 32, 1000}, PushLoad{16, 1, 5000},
                                           PushLoad{16, 96, 50}, PushLoad{100, 7, 300}));

// Nobody takes anything: producers end by their own patience, and none hangs.
TEST_F(CommandRingOnGpu, NobodyTakesAnything) {
  PushLoad const load{4, 8, 100};
  CommandRingMemory const memory(8);
  Pinned const notes(4 * 8 * 100);
  test::check_cuda(launch_push_all(memory.producers(), load, {notes.host, gave_up_, 50'000'000}), "launch");
  EXPECT_EQ(given_up(), 4U * 8U);
  CommandRing ring = memory.consumer();
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(ring.next()) << i;
  EXPECT_FALSE(ring.next());
}

}  // namespace

}  // namespace switchyard::cuda
