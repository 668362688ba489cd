#include "support/reference_combine.hpp"

#include "support/numbers.hpp"

namespace switchyard::test {
namespace {

Random expert_random(Problem const& p, int receiver, Row const& row, std::uint64_t what) {
  return Random(mix(mix(p.the.seed, static_cast<std::uint64_t>(receiver), row.source), what,
                    static_cast<std::uint64_t>(row.token), row.slot + 1));
}

// The f32 sum of a token, rows only. Starts at +0 without rows, with the first row otherwise.
std::vector<float> sum_of_parts(Problem const& p, std::vector<Part> const& parts, bool weighted) {
  std::vector<float> sum(index(p.the.hidden), 0.0F);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    std::vector<std::byte> const values = expert_output(p, parts[i].receiver, parts[i].row);
    float const weight = weighted ? row_weight(p, parts[i].receiver, parts[i].row) : 1.0F;
    for (std::size_t h = 0; h < sum.size(); ++h) {
      float const value = get(values.data(), p.the.combine_dtype, h) * weight;
      sum[h] = i == 0 ? value : sum[h] + value;
    }
  }
  return sum;
}

}  // namespace

std::vector<std::byte> expert_output(Problem const& p, int receiver, Row const& row) {
  Random random = expert_random(p, receiver, row, 1);
  return random_values(p.the.combine_dtype, p.the.hidden, random);
}

float row_weight(Problem const& p, int receiver, Row const& row) {
  return expert_random(p, receiver, row, 2).real();
}

float weight_gradient(Problem const& p, int receiver, Row const& row, int slot) {
  return expert_random(p, receiver, row, 3 + static_cast<std::uint64_t>(slot)).real();
}

std::vector<std::byte> bias_of(Problem const& p, int rank, int which) {
  Random random(mix(p.the.seed, static_cast<std::uint64_t>(rank), 1000 + which));
  return random_values(p.the.combine_dtype, p.inputs[index(rank)].tokens * p.the.hidden, random);
}

std::vector<Part> parts_of(Problem const& p, int source, std::int64_t token) {
  std::vector<Part> parts;
  if (!p.the.expanded()) {
    for (int rank = 0; rank < p.the.ranks; ++rank) {
      if (goes_to(p, source, token, rank)) parts.push_back({rank, {source, token, -1}});
    }
    return parts;
  }
  for (int expert = 0; expert < p.the.experts; ++expert) {
    for (int slot = 0; slot < p.the.top_k; ++slot) {
      if (ids_of(p, source, token)[slot] == expert)
        parts.push_back({owner_of(p.the, expert), {source, token, slot}});
    }
  }
  return parts;
}

std::vector<std::byte> combined_x(Problem const& p, int rank, CombineExtras const& extras) {
  std::size_t const hidden = index(p.the.hidden);
  DType const dtype = p.the.combine_dtype;
  std::vector<std::byte> out(index(p.inputs[index(rank)].tokens) * hidden * size_of(dtype));
  std::vector<std::vector<std::byte>> biases;
  for (int i = 0; i < extras.biases; ++i) biases.push_back(bias_of(p, rank, i));
  for (std::int64_t t = 0; t < p.inputs[index(rank)].tokens; ++t) {
    std::vector<float> sum = sum_of_parts(p, parts_of(p, rank, t), extras.row_weights);
    for (std::size_t h = 0; h < hidden; ++h) {
      std::size_t const at = index(t) * hidden + h;
      for (auto const& bias : biases) sum[h] += get(bias.data(), dtype, at);
      put(out.data(), dtype, at, sum[h]);
    }
  }
  return out;
}

std::vector<float> combined_weights(Problem const& p, int rank) {
  std::int64_t const tokens = p.inputs[index(rank)].tokens;
  std::vector<float> out(index(tokens * p.the.top_k), 0.0F);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (int k = 0; k < p.the.top_k; ++k) {
      std::int64_t const id = ids_of(p, rank, t)[k];
      if (id < 0) continue;
      Row const row{rank, t, p.the.expanded() ? k : -1};
      out[index(t * p.the.top_k + k)] = weight_gradient(p, owner_of(p.the, id), row, k);
    }
  }
  return out;
}

}  // namespace switchyard::test
