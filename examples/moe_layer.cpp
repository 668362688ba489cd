// A Mixture-of-Experts layer, forward, with its experts spread over the ranks of a job:
//
//   gate      each token picks its top-k experts, with weights that sum up to 1
//   dispatch  every token travels to the ranks that hold its experts
//   experts   each rank runs its experts:  out = W2 silu(W1 x)
//   combine   the outputs travel back and are summed up, weighted
//
// The ranks are threads here, so that it runs anywhere as one program. In a real job they are processes, and
// `Communicator::from_environment()` takes the place of `Communicator::join()`; nothing else changes.
//
// The result is compared with the same layer computed densely, by plain loops.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "switchyard/switchyard.hpp"

namespace {

using switchyard::DType;

constexpr int ranks = 4;
constexpr int tokens = 64;  // of each rank
constexpr int hidden = 256;
constexpr int inner = 128;   // width inside an expert
constexpr int experts = 10;  // of all ranks: 3, 3, 2 and 2
constexpr int top_k = 4;
// Activations travel as bf16, which keeps 8 bits: the error of a sum of top_k of them stays below this.
constexpr float tolerance = 0.02F;

using Matrix = std::vector<float>;  // row-major

float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}
std::uint16_t to_bf16(float value) {  // to nearest even
  auto const bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Of normally distributed values; `deviation` is their standard deviation.
Matrix random_matrix(int rows, int columns, float deviation, int seed) {
  std::mt19937 random(static_cast<unsigned>(seed));
  std::normal_distribution<float> normal(0.0F, deviation);
  Matrix matrix(static_cast<std::size_t>(rows * columns));
  for (float& value : matrix) value = normal(random);
  return matrix;
}

// Weights that neither shrink nor blow up what they are multiplied with.
Matrix random_weights(int rows, int columns, int seed) {
  return random_matrix(rows, columns, 1.0F / std::sqrt(static_cast<float>(columns)), seed);
}

// out = W x, with W of rows x columns.
std::vector<float> multiply(Matrix const& w, std::vector<float> const& x) {
  std::vector<float> out(w.size() / x.size());
  for (std::size_t row = 0; row < out.size(); ++row) {
    out[row] =
        std::inner_product(x.begin(), x.end(), w.begin() + static_cast<std::ptrdiff_t>(row * x.size()), 0.0F);
  }
  return out;
}

struct Expert {
  explicit Expert(int id)
      : w1(random_weights(inner, hidden, 100 + id)), w2(random_weights(hidden, inner, 200 + id)) {}

  [[nodiscard]] std::vector<float> operator()(std::vector<float> const& x) const {
    std::vector<float> middle = multiply(w1, x);
    for (float& value : middle) value = value / (1.0F + std::exp(-value));  // SiLU
    return multiply(w2, middle);
  }

  Matrix w1;
  Matrix w2;
};

// What the gate decides about the tokens of a rank.
struct Gated {
  std::vector<std::int64_t> idx;  // [tokens, top_k]
  std::vector<float> weights;     // [tokens, top_k]
};

std::vector<float> token_of(std::vector<std::uint16_t> const& x, int token) {
  std::vector<float> row(hidden);
  std::transform(x.begin() + token * hidden, x.begin() + (token + 1) * hidden, row.begin(), from_bf16);
  return row;
}

// Softmax over the scores, the best top_k of it, scaled to a sum of 1.
Gated gate(std::vector<std::uint16_t> const& x) {
  Matrix const w = random_weights(experts, hidden, 7);
  Gated gated;
  for (int t = 0; t < tokens; ++t) {
    std::vector<float> const scores = multiply(w, token_of(x, t));
    std::vector<int> order(experts);
    std::iota(order.begin(), order.end(), 0);
    auto const score = [&](int expert) { return scores[static_cast<std::size_t>(expert)]; };
    std::sort(order.begin(), order.end(), [&](int a, int b) { return score(a) > score(b); });
    float sum = 0;
    for (int k = 0; k < top_k; ++k) sum += std::exp(score(order[static_cast<std::size_t>(k)]));
    for (int k = 0; k < top_k; ++k) {
      int const expert = order[static_cast<std::size_t>(k)];
      gated.idx.push_back(expert);
      gated.weights.push_back(std::exp(score(expert)) / sum);
    }
  }
  return gated;
}

// The layer as a rank of the job runs it.
std::vector<std::uint16_t> moe_forward(switchyard::Buffer& buffer, std::vector<Expert> const& my_experts,
                                       std::vector<std::uint16_t> const& x) {
  Gated const gated = gate(x);

  // "expanded": a row for each (token, expert), grouped by expert, which is what a grouped matrix product wants.
  switchyard::DispatchArgs send;
  send.x = {x.data(), DType::bf16, {tokens, hidden}};
  send.topk_idx = {gated.idx.data(), DType::i64, {tokens, top_k}};
  send.topk_weights = {gated.weights.data(), DType::f32, {tokens, top_k}};
  send.layout = switchyard::OutputLayout::expanded;
  switchyard::Dispatched const routed = buffer.dispatch(send);

  // Experts write straight into memory that combine reads from: no copy in between.
  switchyard::Tensor const outputs = buffer.allocate(DType::bf16, {routed.x.size(0), hidden});
  auto const* in = routed.x.data<std::uint16_t>();
  auto* out = outputs.data<std::uint16_t>();
  for (std::size_t e = 0; e < my_experts.size(); ++e) {
    for (std::int64_t i = 0; i < routed.tokens_per_expert[e]; ++i) {
      std::vector<float> row(hidden);
      std::transform(in, in + hidden, row.begin(), from_bf16);
      std::vector<float> const result = my_experts[e](row);
      out = std::transform(result.begin(), result.end(), out, to_bf16);
      in += hidden;
    }
  }

  switchyard::CombineArgs back;
  back.x = outputs;
  back.handle = routed.handle;
  back.row_weights = routed.topk_weights;  // multiplied in before the sum
  switchyard::Tensor const y = buffer.combine(back).x;
  return {y.data<std::uint16_t>(), y.data<std::uint16_t>() + tokens * hidden};
}

// The same layer without ranks: every token through its experts, one after another. Returns the largest error.
float largest_error(std::vector<Expert> const& all_experts, std::vector<std::uint16_t> const& x,
                    std::vector<std::uint16_t> const& y) {
  Gated const gated = gate(x);
  float worst = 0;
  for (int t = 0; t < tokens; ++t) {
    std::vector<float> expected(hidden);
    for (int k = 0; k < top_k; ++k) {
      auto const slot = static_cast<std::size_t>(t) * top_k + static_cast<std::size_t>(k);
      auto const out = all_experts[static_cast<std::size_t>(gated.idx[slot])](token_of(x, t));
      for (std::size_t c = 0; c < hidden; ++c) expected[c] += gated.weights[slot] * out[c];
    }
    auto const got = token_of(y, t);
    for (std::size_t c = 0; c < hidden; ++c) worst = std::max(worst, std::abs(got[c] - expected[c]));
  }
  return worst;
}

// Experts are split over the ranks in contiguous ranges; the first ranks hold one more.
std::vector<Expert> experts_of(int rank) {
  int const begin = rank * (experts / ranks) + std::min(rank, experts % ranks);
  int const count = experts / ranks + (rank < experts % ranks ? 1 : 0);
  std::vector<Expert> mine;
  for (int e = begin; e < begin + count; ++e) mine.emplace_back(e);
  return mine;
}

float run_rank(switchyard::Communicator const& communicator) {
  switchyard::Buffer buffer(communicator,
                            {.max_tokens = tokens, .hidden = hidden, .num_experts = experts, .top_k = top_k});
  Matrix const input = random_matrix(tokens, hidden, 1.0F, 1000 + communicator.rank());
  std::vector<std::uint16_t> x(input.size());
  std::transform(input.begin(), input.end(), x.begin(), to_bf16);

  std::vector<std::uint16_t> const y = moe_forward(buffer, experts_of(communicator.rank()), x);

  std::vector<Expert> all;
  for (int e = 0; e < experts; ++e) all.emplace_back(e);
  return largest_error(all, x, y);
}

}  // namespace

int main() {
  auto const store = switchyard::Communicator::in_process_store();
  std::vector<float> errors(ranks, INFINITY);
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        try {
          errors[static_cast<std::size_t>(rank)] = run_rank(switchyard::Communicator::join(store, rank, ranks));
        } catch (std::exception const& error) {
          std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
        }
      });
    }
  }
  float const worst = *std::max_element(errors.begin(), errors.end());
  bool const good = worst <= tolerance;
  std::printf("%d ranks, %d experts, top-%d: largest error %.2g, tolerance %.2g: %s\n", ranks, experts, top_k,
              static_cast<double>(worst), static_cast<double>(tolerance), good ? "ok" : "FAILED");
  return good ? 0 : 1;
}
