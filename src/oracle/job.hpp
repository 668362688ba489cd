// What a call asks for, and where the oracle gets the inputs of all ranks from.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "switchyard/low_latency.hpp"

namespace switchyard::oracle {

// Experts in contiguous ranges; the first experts % ranks ranks hold one more.
struct ExpertRange {
  int begin = 0;
  int end = 0;
  [[nodiscard]] constexpr int count() const noexcept { return end - begin; }
  [[nodiscard]] constexpr bool holds(std::int64_t expert) const noexcept { return expert >= begin && expert < end; }
};

// `of` has `experts` and `ranks`.
template <typename Sizes>
constexpr ExpertRange experts_of(Sizes const& of, int rank) noexcept {
  int const base = of.experts / of.ranks;
  int const extra = of.experts % of.ranks;
  int const begin = rank * base + (rank < extra ? rank : extra);
  return {begin, begin + base + (rank < extra ? 1 : 0)};
}

template <typename Sizes>
constexpr int rank_of_expert(Sizes const& of, std::int64_t expert) noexcept {
  int rank = 0;
  while (!experts_of(of, rank).holds(expert)) ++rank;
  return rank;
}

// What both modes ask for.
struct Terms {
  int ranks = 1;
  int experts = 1;
  int top_k = 1;
  std::int64_t hidden = 0;
  DType dtype = DType::bf16;  // of x; u8 (low-latency mode): opaque rows
  DType id_dtype = DType::i64;
  SendCast cast = SendCast::none;
  bool by_rank = false;    // token_in_rank instead of topk_idx
  bool weights = true;     // are passed
  bool by_expert = false;  // a row for each expert of a token (expanded, expert_major), or one for each rank
  DType output_dtype = DType::bf16;
  std::uint64_t seed = 0;           // to repeat it with; texts name it
  std::vector<int> node_by_rank{};  // empty: one node
  bool f32_partials = false;        // of combines over nodes; see BufferOptions

  [[nodiscard]] std::int64_t groups() const noexcept { return (hidden + 127) / 128; }
  [[nodiscard]] DType received_dtype() const noexcept { return cast == SendCast::none ? dtype : DType::f8e4m3; }
  [[nodiscard]] bool fp8() const noexcept { return received_dtype() == DType::f8e4m3; }
  [[nodiscard]] int node_of(int rank) const {
    return node_by_rank.empty() ? 0 : node_by_rank[static_cast<std::size_t>(rank)];
  }
  [[nodiscard]] bool spans_nodes() const {
    return !std::ranges::all_of(node_by_rank, [&](int node) { return node == node_by_rank.front(); });
  }
};

struct TokenKey {
  int rank = 0;
  std::int64_t token = 0;
};

// A row that a rank receives: for which token it stands, and for which of its slots and local experts, where a row
// is for one of them.
struct Row {
  int source = -1;
  std::int64_t token = -1;
  int slot = -1;
  int expert = -1;
  [[nodiscard]] bool pads() const noexcept { return source < 0; }
  [[nodiscard]] TokenKey key() const noexcept { return {source, token}; }
};

// A token as it is passed, or as it arrives.
struct TokenBytes {
  std::vector<std::byte> x;
  std::vector<std::byte> scales;  // empty without
};

// The inputs of all ranks, and what their experts make of them. Every rank can ask for those of any other.
class JobData {
 public:
  virtual ~JobData() = default;

  [[nodiscard]] virtual std::int64_t tokens(int rank) const = 0;
  // The expert of a slot; -1: not used.
  [[nodiscard]] virtual std::int64_t id(TokenKey const& key, int slot) const = 0;
  // Whether token_in_rank sends it there, for Terms::by_rank.
  [[nodiscard]] virtual bool in_rank(TokenKey const& /*key*/, int /*rank*/) const { return false; }
  [[nodiscard]] virtual TokenBytes token(TokenKey const& key) const = 0;
  [[nodiscard]] virtual std::vector<float> weights(TokenKey const& key) const = 0;  // [K]

  // What `maker`, a rank, passes to combine for a row that it received.
  virtual void fill_output(int maker, Row const& row, std::span<std::byte> out) const = 0;
  [[nodiscard]] virtual float row_weight(int /*maker*/, Row const& /*row*/) const { return 1; }
  [[nodiscard]] virtual float gradient(int /*maker*/, Row const& /*row*/, int /*slot*/) const { return 0; }
  // What the token's own rank passes as bias `which`.
  virtual void fill_bias(int /*which*/, TokenKey const& /*key*/, std::span<std::byte> /*out*/) const {}

 protected:
  JobData() = default;
  JobData(JobData const&) = default;
  JobData(JobData&&) = default;
  JobData& operator=(JobData const&) = default;
  JobData& operator=(JobData&&) = default;
};

}  // namespace switchyard::oracle
