// The rows of a combine that cross between nodes: what this rank has placed for ranks of other nodes is summed over
// the ranks of its node and goes back, a row for each token; and what comes back for this rank's tokens is added to
// the sum of its own node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "call/throughput.hpp"
#include "engine/cpu/throughput/crossing.hpp"
#include "engine/cpu/throughput/returned_rows.hpp"
#include "engine/cpu/throughput/row_sums.hpp"
#include "layout/scale_out/combine_chunk.hpp"

namespace switchyard::cpu {

// All of it must outlive the crossing.
struct CombineBetween {
  Crossing& crossing;
  Signals& signals;
  CombineCall const& call;
  RowSums& sums;
  std::uint64_t epoch = 0;
  bool f32_partials = false;
};

class CombineCrossing {
 public:
  explicit CombineCrossing(CombineBetween const& between);

  // Sends what goes back, and sums all tokens of this rank. Fails the buffer when that cannot be.
  void run();

 private:
  // Sums on their way to one rank of another node.
  struct Outgoing {
    scale_out::Served to;
    scale_out::PlacedTokens const& tokens;
    std::vector<std::uint8_t> weights;  // how many go with each token's row; the writer reads it
    scale_out::CombineWriter writer;
  };

  void add_outgoing(scale_out::Served const& to, scale_out::PlacedTokens const& tokens);
  void poll() { crossing_.poll(between_.signals); }
  bool send_one();
  void fill(Outgoing& outgoing, scale_out::Port::Room const& room);
  bool take_chunks();
  bool sum_some();
  // The next token of this rank; returns false while what other nodes bring has not come.
  bool sum_next();
  // What nodes bring to the sum of the token, in their order.
  void add_parts(std::int64_t token, NodeSum& sum);
  // The rows of this rank's own node.
  void add_own(std::int64_t token, NodeSum& sum);
  void take_weights(std::int64_t token);
  void add_weights(ReturnedRows const& from, std::span<float> out) const;
  void put_weights(scale_out::PlacedTokens const& tokens, std::size_t token, std::span<std::byte> to) const;
  [[nodiscard]] RowAt at(scale_out::PlacedRow const& row) const;
  [[nodiscard]] bool done() const;
  [[nodiscard]] int awaited() const;

  CombineBetween between_;
  Crossing& crossing_;
  detail::Routing const& routing_;
  std::size_t row_bytes_;
  std::vector<float> own_weights_;  // of all ranks: those of the own node
  std::vector<void const*> parts_;  // of the token that is summed, in the order of nodes
  std::vector<Outgoing> outgoing_;
  std::vector<ReturnedRows> returned_;  // by way
  std::int64_t next_token_ = 0;
  std::size_t next_out_ = 0;  // whose turn it is
};

}  // namespace switchyard::cpu
