// The way back: a node has summed its ranks' outputs for each token of a source, and returns one row for each, in
// the order in which the tokens came. Both ends know which tokens those are, so the rows travel without numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "layout/scale_out/chunk_layout.hpp"

namespace switchyard::scale_out {

// What a node returns to a source. It must outlive writers and readers.
struct CombineStream {
  std::size_t row_bytes = 0;  // in the output's dtype, or f32
  std::uint32_t tokens = 0;   // of the source that went to the node
  // By token, how many f32 weights go with its row: one for each of its slots there, or for all slots where weights
  // of all ranks are summed. Empty: none travel.
  std::span<std::uint8_t const> weights{};
  std::uint64_t epoch = 0;

  [[nodiscard]] std::size_t weights_of(std::size_t token) const noexcept {
    return weights.empty() ? 0 : weights[token];
  }
};

// Throws InvalidArgument for what no call can have.
ChunkFormat combine_format(CombineStream const& stream);

class CombineWriter {
 public:
  explicit CombineWriter(CombineStream const& stream) : stream_(stream), format_(combine_format(stream)) {}

  [[nodiscard]] bool done() const noexcept { return end_ == stream_.tokens; }
  // As ChunkWriter::begin().
  std::size_t begin(std::span<std::byte> slot);

  struct Row {
    std::uint32_t token = 0;  // number among the source's tokens for the node
    std::byte* x = nullptr;
    std::span<std::byte> weights{};  // f32 each
  };
  // Nothing: the chunk is full.
  std::optional<Row> next_row() noexcept;

 private:
  CombineStream stream_;
  ChunkFormat format_;
  std::byte* chunk_ = nullptr;
  ChunkParts parts_{};
  std::size_t first_ = 0;  // of the chunk
  std::size_t end_ = 0;
  std::size_t next_ = 0;  // the token whose row comes next
  std::byte* next_weight_ = nullptr;
};

class CombineReader {
 public:
  explicit CombineReader(CombineStream const& stream) : stream_(stream), format_(combine_format(stream)) {}

  // Reads one chunk from `rank` in place of the one before; it must stay as long as rows are used. Throws
  // InvalidArgument, naming the rank, and has no rows then.
  void read(Bytes chunk, int rank);

  // Number of the chunk's first token among the source's tokens for the node.
  [[nodiscard]] std::uint32_t first() const noexcept { return first_; }
  [[nodiscard]] std::size_t size() const noexcept { return rows_.size(); }

  struct Row {
    std::byte const* x = nullptr;
    Bytes weights{};  // f32 each
  };
  [[nodiscard]] Row const& row(std::size_t i) const noexcept { return rows_[i]; }

 private:
  CombineStream stream_;
  ChunkFormat format_;
  std::uint32_t first_ = 0;
  std::vector<Row> rows_;
};

}  // namespace switchyard::scale_out
