// The rows of a combine that cross between nodes: what this rank has placed for ranks of other nodes is summed over
// the ranks of its node and goes back, a row for each token; and what comes back for this rank's tokens is added to
// the sum of its own node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "call/hosted/combine_streams.hpp"
#include "call/hosted/crossing.hpp"
#include "call/hosted/returned_rows.hpp"
#include "call/hosted/row_mover.hpp"
#include "call/throughput.hpp"
#include "engine/cpu/throughput/row_sums.hpp"
#include "layout/scale_out/combine_chunk.hpp"

namespace switchyard::cpu {

class CombineCrossing {
 public:
  // Both must outlive it.
  CombineCrossing(PullTask const& task, RowSums& sums);

  // Sends what goes back, and sums all tokens of this rank. Fails the buffer when that cannot be.
  void run();

 private:
  void poll() { crossing_.poll(task_.signals); }
  bool send_one();
  void fill(SumsBack& outgoing, scale_out::Port::Room const& room);
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

  PullTask const& task_;
  RowSums& sums_;
  Crossing& crossing_;
  detail::Routing const& routing_;
  std::size_t rows_between_looks_;
  std::vector<float> own_weights_;  // of all ranks: those of the own node
  std::vector<void const*> parts_;  // of the token that is summed, in the order of nodes
  std::vector<SumsBack> outgoing_;
  std::vector<ReturnedRows> returned_;  // by way
  std::int64_t next_token_ = 0;
  std::size_t next_out_ = 0;  // whose turn it is
};

}  // namespace switchyard::cpu
