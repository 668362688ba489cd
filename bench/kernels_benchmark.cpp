// The CPU engine's kernels on working sets far larger than the caches, each against what memcpy does with the
// same bytes. 7168 channels of bf16 a token, as in DeepSeek-V3; five destinations or expert rows a token.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

#include "engine/cpu/simd/kernels.hpp"
#include "layout/fp8.hpp"

namespace switchyard::cpu {
namespace {

constexpr std::size_t hidden = 7168;
constexpr std::size_t row_bytes = hidden * 2;
constexpr std::size_t fan = 5;
constexpr std::size_t pool_rows = 40960;  // 560 MiB

// Rows in shared memory, as in the symmetric heap, and an order in which to visit them: ascending within
// each of `fan` parts, with gaps, as the rows of one source lie in the heaps of its peers.
class Pool {
 public:
  Pool() : memory_(map(pool_rows * row_bytes)), order_(pool_rows) {
    std::mt19937 random(1);
    for (std::size_t i = 0; i < pool_rows * row_bytes / 4; ++i) {
      std::uint32_t const pair = (static_cast<std::uint32_t>(random()) & 0x807f807f) | 0x3f803f80;  // +-1 to +-2
      std::memcpy(memory_ + 4 * i, &pair, 4);
    }
    std::iota(order_.begin(), order_.end(), 0U);
    std::size_t const part = pool_rows / fan;
    for (std::size_t i = 0; i < fan; ++i) {
      std::span const rows(order_.data() + i * part, part);
      for (std::size_t j = 0; j + 8 <= part; j += 8) std::ranges::shuffle(rows.subspan(j, 8), random);
    }
  }
  // The row of token `token` in part `part`; tokens of two threads never meet.
  [[nodiscard]] std::byte* row(std::size_t part, std::size_t token) const {
    return memory_ + order_[part * tokens + token % tokens] * row_bytes;
  }
  static constexpr std::size_t tokens = pool_rows / fan;

 private:
  static std::byte* map(std::size_t bytes) {
    void* const memory =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("no memory for the benchmark");
    return static_cast<std::byte*>(memory);
  }
  std::byte* memory_;
  std::vector<std::uint32_t> order_;
};

Pool const& pool() {
  static Pool const instance;
  return instance;
}

// Where a thread's tokens start.
std::size_t first_token(benchmark::State const& state) {
  return Pool::tokens / static_cast<std::size_t>(state.threads()) * static_cast<std::size_t>(state.thread_index());
}

void report(benchmark::State& state, std::size_t bytes) {
  store_fence();
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

// One row, in cache after its first use, to five places.
void plain_copy(std::byte* to, std::byte const* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}

template <void (*copy)(std::byte*, std::byte const*, std::size_t)>
void dispatch(benchmark::State& state) {
  std::vector<std::byte> const source(1024 * row_bytes, std::byte{1});
  std::size_t token = first_token(state);
  for (auto _ : state) {
    for (std::size_t i = 0; i < fan; ++i) copy(pool().row(i, token), &source[token % 1024 * row_bytes], row_bytes);
    ++token;
  }
  report(state, fan * row_bytes);
}

// Many copies of a small size, one after the other.
template <void (*copy)(std::byte*, std::byte const*, std::size_t)>
void small_copies(benchmark::State& state) {
  auto const bytes = static_cast<std::size_t>(state.range(0));
  std::vector<std::byte> const source(bytes + 64, std::byte{1});
  std::size_t token = first_token(state);
  for (auto _ : state) {
    for (std::size_t i = 0; i < fan; ++i) copy(pool().row(i, token), source.data(), bytes);
    ++token;
  }
  report(state, fan * bytes);
}

// Bytes counted: the rows read and the row written.
template <DType dtype>
void combine(benchmark::State& state) {
  std::vector<std::byte> out(1024 * row_bytes);
  std::array<float, fan> const weights = {0.1F, 0.2F, 0.3F, 0.25F, 0.15F};
  std::array<void const*, fan> rows{};
  std::size_t token = first_token(state);
  for (auto _ : state) {
    for (std::size_t i = 0; i < fan; ++i) rows[i] = pool().row(i, token);
    sum_rows({.rows = rows,
              .row_weights = state.range(0) == 0 ? nullptr : weights.data(),
              .out = &out[token % 1024 * row_bytes],
              .count = row_bytes / size_of(dtype),
              .dtype = dtype});
    ++token;
  }
  report(state, (fan + 1) * row_bytes);
}

// What one memcpy per row moves: reads as many bytes, and writes them to a buffer that stays in cache.
void combine_memcpy(benchmark::State& state) {
  std::vector<std::byte> out(row_bytes);
  std::size_t token = first_token(state);
  for (auto _ : state) {
    for (std::size_t i = 0; i < fan; ++i) {
      std::memcpy(out.data(), pool().row(i, token), row_bytes);
      benchmark::ClobberMemory();
    }
    ++token;
  }
  report(state, fan * row_bytes);
}

// Bytes counted: the row read.
void cast(benchmark::State& state) {
  std::vector<std::uint8_t> values(hidden);
  std::vector<float> scales(hidden / static_cast<std::size_t>(fp8_group));
  std::size_t token = first_token(state);
  for (auto _ : state) {
    for (std::size_t i = 0; i < fan; ++i) {
      cast_to_fp8(
          {.from = pool().row(i, token), .count = hidden, .values = values.data(), .scales = scales.data()});
    }
    ++token;
  }
  report(state, fan * row_bytes);
}

BENCHMARK(dispatch<plain_copy>)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK(dispatch<stream_copy>)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK(small_copies<plain_copy>)->RangeMultiplier(2)->Range(64, 4096)->UseRealTime();
BENCHMARK(small_copies<stream_copy>)->RangeMultiplier(2)->Range(64, 4096)->UseRealTime();
BENCHMARK(combine_memcpy)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK(combine<DType::bf16>)->ArgName("weighted")->Arg(0)->Arg(1)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK(combine<DType::f16>)->ArgName("weighted")->Arg(0)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK(combine<DType::f32>)->ArgName("weighted")->Arg(0)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK(cast)->ThreadRange(1, 2)->UseRealTime();

}  // namespace
}  // namespace switchyard::cpu

int main(int argc, char** argv) {
  switchyard::cpu::pool();  // filled before anything is timed
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
