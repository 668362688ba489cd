// The data of a benchmark: what every token, scale, weight and expert output is, as a function of the seed and
// of its place. Inputs are filled with it, and what arrives is compared with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "oracle/problem.hpp"
#include "oracle/routing.hpp"

namespace switchyard::oracle {

// The token's elements as the caller of dispatch holds them. fp8 takes all 256 bit patterns; the others are
// finite, of either sign, and of a magnitude from 2^-7 (f16: 2^-3) to below 2^1.
void fill_token(Problem const& problem, TokenKey const& key, std::span<std::byte> row);
// Scales given by the caller (Payload::fp8).
void fill_scales(Problem const& problem, TokenKey const& key, std::span<float> scales);
void fill_weights(Problem const& problem, TokenKey const& key, std::span<float> weights);

// What rank `maker` makes of a row, in bf16. Magnitudes are 2^-7 to 2^1, so that the sum of up to 64 rows is exact
// in f32: without weights, the expected result does not depend on the order of the sum.
void fill_expert_output(Problem const& problem, int maker, Row const& row, std::span<std::byte> out);

// All of it, with the routing.
class SeededData final : public JobData {
 public:
  SeededData(Problem const& problem, RoutingTable const& routing) : problem_(problem), routing_(routing) {}

  [[nodiscard]] std::int64_t tokens(int /*rank*/) const override { return routing_.tokens(); }
  [[nodiscard]] std::int64_t id(TokenKey const& key, int slot) const override {
    return routing_.token(key.rank, key.token)[static_cast<std::size_t>(slot)];
  }
  [[nodiscard]] TokenBytes token(TokenKey const& key) const override;
  [[nodiscard]] std::vector<float> weights(TokenKey const& key) const override;
  void fill_output(int maker, Row const& row, std::span<std::byte> out) const override {
    fill_expert_output(problem_, maker, row, out);
  }

 private:
  Problem problem_;
  RoutingTable const& routing_;
};

}  // namespace switchyard::oracle
