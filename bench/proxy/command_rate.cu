// What the way between kernels and a thread of the host gives by itself: commands a second through a CommandRing,
// and the time from a command to the word that answers it. Medians of 9; there is nothing to choose.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/cuda/device/command_ring.cuh"
#include "engine/cuda/host/command_ring_memory.hpp"

namespace {

using switchyard::cuda::CommandRing;
using switchyard::cuda::CommandRingMemory;
using switchyard::cuda::CommandRingView;
namespace ptx = switchyard::cuda::ptx;

constexpr int repetitions = 9;
constexpr std::uint64_t patience_ns = 10'000'000'000;

void check_cuda(cudaError_t error, char const* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

struct Patience {
  std::uint64_t ends;
  __device__ bool operator()() const { return ptx::global_timer() > ends; }
};

__global__ void push_many(CommandRingView ring, int commands) {
  Patience const patience{ptx::global_timer() + patience_ns};
  for (int i = 0; i < commands; ++i)
    if (!push(ring, i, patience)) return;
}

// Waits for the answer to each command before the next.
__global__ void ask(CommandRingView ring, std::uint64_t const* answer, int commands, std::uint64_t* took_ns) {
  std::uint64_t const begin = ptx::global_timer();
  Patience const patience{begin + patience_ns};
  for (int i = 0; i < commands; ++i) {
    if (!push(ring, i, patience)) return;
    // Pairs with the release store in ask_and_answer().
    while (ptx::load_acquire(answer) != static_cast<std::uint64_t>(i) + 1)
      if (patience()) return;
  }
  *took_ns = ptx::global_timer() - begin;
}

struct Free {
  void operator()(std::uint64_t* memory) const { cudaFreeHost(memory); }
};

std::unique_ptr<std::uint64_t[], Free> pinned(std::size_t words) {
  void* memory = nullptr;
  check_cuda(cudaHostAlloc(&memory, words * sizeof(std::uint64_t), cudaHostAllocMapped), "pinned memory");
  std::unique_ptr<std::uint64_t[], Free> owned(static_cast<std::uint64_t*>(memory));
  std::fill_n(owned.get(), words, 0);
  return owned;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

std::uint64_t take(CommandRing& ring) {
  auto const ends = std::chrono::steady_clock::now() + std::chrono::nanoseconds(2 * patience_ns);
  for (unsigned look = 1;; ++look) {
    if (auto const command = ring.next()) return *command;
    if (look % 4096 == 0 && std::chrono::steady_clock::now() > ends)
      throw std::runtime_error("commands: expected more, seen none for 20 s");
  }
}

// Millions a second, from the first command that comes to the last.
double rate(int blocks, int threads) {
  int const each = std::max(200'000 / (blocks * threads), 100);
  CommandRingMemory const memory(4096);
  push_many<<<blocks, threads>>>(memory.producers(), each);
  check_cuda(cudaGetLastError(), "launch");
  CommandRing ring = memory.consumer();
  take(ring);
  auto const begin = std::chrono::steady_clock::now();
  for (int i = 1; i < blocks * threads * each; ++i) take(ring);
  std::chrono::duration<double, std::micro> const took = std::chrono::steady_clock::now() - begin;
  check_cuda(cudaDeviceSynchronize(), "the kernel");
  return blocks * threads * each / took.count();
}

// Microseconds from a command to its answer.
double ask_and_answer() {
  constexpr int commands = 20'000;
  CommandRingMemory const memory(64);
  auto const answer = pinned(16);
  auto const took = pinned(1);
  ask<<<1, 1>>>(memory.producers(), answer.get(), commands, took.get());
  check_cuda(cudaGetLastError(), "launch");
  CommandRing ring = memory.consumer();
  for (int i = 0; i < commands; ++i)
    std::atomic_ref(answer[0]).store(take(ring) + 1, std::memory_order_release);  // pairs with the load in ask()
  check_cuda(cudaDeviceSynchronize(), "the kernel");
  return static_cast<double>(took[0]) / commands / 1000;
}

template <typename Measure>
double median_of(Measure const& measure) {
  measure();
  std::vector<double> values;
  for (int i = 0; i < repetitions; ++i) values.push_back(measure());
  return median(values);
}

}  // namespace

int main() try {
  std::printf("blocks  threads of each  million commands a second\n");
  for (int const threads : {1, 32})
    for (int const blocks : {1, 4, 16, 64})
      std::printf("%6d  %15d  %25.2f\n", blocks, threads, median_of([=] { return rate(blocks, threads); }));
  std::printf("\nGPU -> host -> GPU: %.2f us\n", median_of(ask_and_answer));
  return 0;
} catch (std::exception const& error) {
  std::fprintf(stderr, "command_rate: %s\n", error.what());
  return 1;
}
