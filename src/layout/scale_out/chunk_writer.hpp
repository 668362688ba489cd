// Packs the tokens of a source for one node into chunks. Everything but the rows is written when a chunk begins;
// then the caller copies each row to where this says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "layout/scale_out/dispatch_format.hpp"
#include "layout/scale_out/node_tokens.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard::scale_out {

// What goes into the chunks of one stream, from a source to a node. It must outlive the writer.
struct DispatchStream {
  DispatchTerms const& terms;
  NodeExperts const& node;
  NodeTokens const& tokens;
  ConstTensorView weights{};  // [N, K] f32 of the source, where weights travel
  std::uint64_t epoch = 0;
};

class ChunkWriter {
 public:
  explicit ChunkWriter(DispatchStream const& stream);

  // Whether all tokens are in chunks.
  [[nodiscard]] bool done() const noexcept { return end_ == stream_.tokens.size(); }

  // Begins the next chunk in a ring slot, when next_row() has nothing more for the one before; returns its bytes.
  // Throws InvalidArgument when not even one token fits, and when nothing is left.
  std::size_t begin(std::span<std::byte> slot);

  // Where the next row of the chunk is to be copied to.
  struct Row {
    std::int32_t token = 0;  // number at the source
    std::byte* x = nullptr;
    std::byte* scales = nullptr;
  };
  // Nothing: the chunk is full.
  std::optional<Row> next_row() noexcept;

 private:
  [[nodiscard]] std::size_t slots_of(std::size_t token) const noexcept;
  void write_header(std::size_t slots) noexcept;
  void write_tokens(std::size_t slots) noexcept;
  void count_rows(std::size_t token, std::span<std::uint16_t const> experts) noexcept;
  std::byte* write_weights(std::size_t token, std::byte* to) const noexcept;

  DispatchStream stream_;
  ChunkFormat format_;
  std::vector<std::uint32_t> starts_;  // by stream: rows of the tokens before end_
  std::byte* chunk_ = nullptr;
  ChunkParts parts_{};
  std::size_t first_ = 0;  // of the chunk
  std::size_t end_ = 0;
  std::size_t next_ = 0;   // the token whose row comes next
  std::size_t slots_ = 0;  // of the tokens before end_
};

}  // namespace switchyard::scale_out
