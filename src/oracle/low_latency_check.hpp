// Compares every value that a low-latency dispatch and combine delivered with what it must be. Tensors lie in host
// memory.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "oracle/sums.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard::oracle {

// What low-latency calls ask for beside the terms.
struct SlotTerms {
  std::int64_t max_tokens = 0;
  CombineCoding coding = CombineCoding::none;
  // Of opaque rows (u8).
  std::int64_t row_bytes = 0;
  std::int64_t scale_bytes = 0;
};

// What is known of a rank when a result is checked.
enum class Presence : std::uint8_t {
  here,
  gone,    // masked: nothing of it counts
  unsure,  // it ended on its way: all of it or nothing
};
// By rank; empty: all are here.
using Peers = std::vector<Presence>;

// The checks of one rank. Each throws the first Mismatch. `data` must live on.
class LowLatencyChecker {
 public:
  LowLatencyChecker(Terms const& terms, SlotTerms const& slots, JobData const& data, int rank);
  // What is to be counted on from now on.
  void expect(Peers peers) { peers_ = std::move(peers); }

  void check_received(LowLatencyReceived const& got) const;
  // `out`: [N, H], rows may be strided.
  void check_combined(ConstTensorView const& out) const;

  // By local expert.
  [[nodiscard]] std::vector<std::int64_t> rows_per_expert() const;
  // The rows that arrived, with the slot that each lies in, of all slots of the result.
  struct Arrival {
    std::int64_t slot;
    Row row;
  };
  [[nodiscard]] std::vector<Arrival> arrivals(LowLatencyReceived const& got) const;
  // Calls `visit(slot, bytes)` with what the experts make of each row that arrived.
  template <typename Visit>
  void for_each_output(LowLatencyReceived const& got, Visit&& visit) const {
    std::vector<std::byte> bytes(static_cast<std::size_t>(terms_.hidden) * size_of(terms_.output_dtype));
    for (Arrival const& arrival : arrivals(got)) {
      data_.fill_output(rank_, arrival.row, bytes);
      visit(arrival.slot, std::span<std::byte const>(bytes));
    }
  }

 private:
  // Rows of an expert, or of a source, that lie together.
  struct Block {
    std::int64_t begin;
    std::int64_t count;
  };
  [[nodiscard]] Place place(char const* what, int source = -1) const {
    return {.what = what, .rank = rank_, .seed = terms_.seed, .from = {source, -1}};
  }
  [[nodiscard]] Place place(char const* what, Arrival const& at) const {
    return {what, rank_, terms_.seed, at.slot, at.row.key()};
  }
  [[nodiscard]] Presence presence(int rank) const;
  [[nodiscard]] bool opaque() const { return terms_.dtype == DType::u8; }
  // The first two dimensions of all tensors of rows: groups (local experts, or sources) and rows of a group.
  [[nodiscard]] std::int64_t groups() const;
  [[nodiscard]] std::int64_t group_rows() const;
  // Elements and type of a row of scales; 0: without scales.
  [[nodiscard]] std::int64_t scale_width() const;
  [[nodiscard]] DType scale_dtype() const;

  [[nodiscard]] Block block_of(LowLatencyReceived const& got, int expert, int source) const;
  [[nodiscard]] std::vector<Row> expected_rows(int expert, int source) const;
  void check_shapes(LowLatencyReceived const& got) const;
  void check_block(Block const& block, int expert, int source) const;
  void check_expert(LowLatencyReceived const& got, int expert) const;
  void check_row(LowLatencyReceived const& got, Arrival const& at) const;
  void check_scales(Tensor const& scales, Arrival const& at, std::vector<std::byte> const& expected) const;
  void check_slots(LowLatencyReceived const& got, Arrival const& at) const;
  [[nodiscard]] SumTerms sum_terms(std::int64_t token, Peers const& peers) const;
  void check_sum_of_any(std::byte const* seen, std::int64_t token, Peers peers) const;
  void check_sum(std::byte const* seen, std::int64_t token, Peers const& peers) const;

  Terms terms_;
  SlotTerms slots_;
  JobData const& data_;
  int rank_;
  ExpertRange ours_;
  Peers peers_;
};

}  // namespace switchyard::oracle
