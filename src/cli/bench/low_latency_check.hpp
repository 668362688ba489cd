// Compares every value that a low-latency dispatch and combine delivered with what it must be.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/bench/case.hpp"
#include "cli/bench/memory.hpp"
#include "oracle/latency_sent.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard::cli {

// The checks of one rank and input set. Each returns the first mismatch, or nothing.
class LatencyChecker {
 public:
  LatencyChecker(LatencyCase const& of, int set, int rank);

  // Finds out where the rows lie, for the others.
  std::optional<std::string> locate(TensorMemory const& memory, LowLatencyReceived const& got);
  [[nodiscard]] std::optional<std::string> check_dispatch(TensorMemory const& memory,
                                                          LowLatencyReceived const& got) const;
  void write_outputs(TensorMemory const& memory, Tensor const& outputs) const;
  [[nodiscard]] std::optional<std::string> check_combine(std::span<std::uint16_t const> got) const;

 private:
  // Rows of an expert, or of a source, that lie together.
  struct Block {
    std::int64_t begin = 0;  // slot, of all
    std::int64_t count = 0;
  };
  [[nodiscard]] std::vector<Block> blocks_by_expert(TensorMemory const& memory,
                                                    LowLatencyReceived const& got) const;
  [[nodiscard]] std::vector<Block> blocks_by_source(TensorMemory const& memory,
                                                    LowLatencyReceived const& got) const;
  // The block of a row that is expected.
  [[nodiscard]] std::size_t block_of(ExpectedRow const& row) const;
  [[nodiscard]] std::optional<std::string> check_counts(TensorMemory const& memory,
                                                        LowLatencyReceived const& got) const;
  [[nodiscard]] std::optional<std::string> check_scales(Tensor const& scales, std::size_t row,
                                                        std::vector<std::byte> const& expected) const;
  [[nodiscard]] std::optional<std::string> check_ids(LowLatencyReceived const& host, std::size_t row) const;
  void add_expected(std::int64_t token, std::span<float> sum) const;

  LatencyCase const& case_;
  Problem problem_;
  RoutingTable const& routing_;
  int rank_;
  std::vector<ExpectedRow> rows_;
  std::vector<std::int64_t> slots_;  // of the rows
};

}  // namespace switchyard::cli
