// The inputs of all ranks for one case, made from its seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "oracle/job.hpp"
#include "support/case.hpp"
#include "support/random.hpp"

namespace switchyard::test {

// Everything contiguous and row-major.
struct RankInput {
  std::int64_t tokens = 0;
  std::vector<std::byte> x;         // [N, H]
  std::vector<float> scales;        // [N, ceil(H/128)], f8e4m3 only
  std::vector<std::int64_t> ids;    // [N, K]; with by_rank all -1
  std::vector<float> weights;       // [N, K]
  std::vector<std::uint8_t> ranks;  // [N, R], by_rank only
};

inline std::size_t index(std::int64_t value) {
  return static_cast<std::size_t>(value);
}

// What experts make of the rows is made up from the seed, their rank, and the row.
struct Problem final : oracle::JobData {
  Case the;
  std::vector<RankInput> inputs;

  [[nodiscard]] std::int64_t tokens(int rank) const override { return inputs[index(rank)].tokens; }
  [[nodiscard]] std::int64_t id(oracle::TokenKey const& key, int slot) const override {
    return inputs[index(key.rank)].ids[index(key.token * the.top_k + slot)];
  }
  [[nodiscard]] bool in_rank(oracle::TokenKey const& key, int rank) const override {
    return inputs[index(key.rank)].ranks[index(key.token * the.ranks + rank)] != 0;
  }
  [[nodiscard]] oracle::TokenBytes token(oracle::TokenKey const& key) const override;
  [[nodiscard]] std::vector<float> weights(oracle::TokenKey const& key) const override;
  void fill_output(int maker, oracle::Row const& row, std::span<std::byte> out) const override;
  [[nodiscard]] float row_weight(int maker, oracle::Row const& row) const override;
  [[nodiscard]] float gradient(int maker, oracle::Row const& row, int slot) const override;
  void fill_bias(int which, oracle::TokenKey const& key, std::span<std::byte> out) const override;
};

// In worst-case mode: rows that every receiver can rely on, a few more than any of them needs unless the case says.
std::int64_t worst_rows(Problem const& p);

void fill_random(DType dtype, std::span<std::byte> out, Random& random);
std::vector<std::byte> random_values(DType dtype, std::int64_t count, Random& random);

std::vector<float> random_floats(std::int64_t count, Random& random);

Problem make_problem(Case const& c);

}  // namespace switchyard::test
