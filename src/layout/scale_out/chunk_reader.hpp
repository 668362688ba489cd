// Reads the chunks of a dispatch: where each token's row belongs. Everything in a chunk comes from outside, so it
// is copied first, and checked as a whole before anything is handed out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "layout/scale_out/dispatch_format.hpp"
#include "layout/scale_out/node_tokens.hpp"

namespace switchyard::scale_out {

// A top-k slot of a token whose expert the node has.
struct ChunkSlot {
  int slot = 0;
  int expert = 0;  // number within the node
  int local_rank = 0;
  int local_expert = 0;
  float weight = 0;  // 0 when weights do not travel
};

// A row that a token takes on the node.
struct ChunkRow {
  int local_rank = 0;
  int slot = -1;          // expanded: the place of its slot among the token's slots here; flat: -1
  std::uint32_t row = 0;  // within the stream source -> rank (flat), or source -> local expert (expanded)
};

struct ChunkToken {
  std::int32_t token = 0;              // number at the source
  std::span<ChunkSlot const> slots{};  // none when routed by rank
  std::span<ChunkRow const> rows{};
  std::byte const* x = nullptr;
  std::byte const* scales = nullptr;
};

// Who wrote a chunk.
struct ChunkSource {
  int rank = 0;
  std::uint64_t epoch = 0;
  NodeCounts const& counts;  // as its notify said
};

class ChunkReader {
 public:
  // Both must outlive the reader.
  ChunkReader(DispatchTerms const& terms, NodeExperts const& node);

  // Reads one chunk in place of the one before. `chunk` may be longer, as a ring slot is; it must stay as long as x
  // and scales are used. Throws InvalidArgument, naming the source, and has no tokens then.
  void read(Bytes chunk, ChunkSource const& source);

  // Number of the chunk's first token among the source's tokens for the node.
  [[nodiscard]] std::uint32_t first() const noexcept { return header_.first; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] ChunkToken token(std::size_t i) const noexcept;
  // Of all tokens of the chunk.
  [[nodiscard]] std::size_t num_rows() const noexcept { return rows_.size(); }
  [[nodiscard]] std::size_t num_slots() const noexcept { return slots_.size(); }

 private:
  // A token, and where its slots and rows end in slots_ and rows_.
  struct Entry {
    std::uint64_t mask = 0;
    std::size_t slots_end = 0;
    std::size_t rows_end = 0;
  };

  void copy(Bytes chunk);
  void check_tokens(int source) const;
  void check_starts(ChunkSource const& source) const;
  void check_ends(ChunkSource const& source) const;
  void place(ChunkSource const& source);
  void place_token(Entry& entry, ChunkSource const& source);
  [[nodiscard]] bool by_rank() const noexcept { return terms_.top_k == 0; }
  [[nodiscard]] std::vector<std::uint32_t> const& rows_of_streams(NodeCounts const& counts) const noexcept {
    return terms_.layout == OutputLayout::expanded ? counts.slots : counts.rows;
  }

  DispatchTerms const& terms_;
  NodeExperts const& node_;
  ChunkFormat format_;
  ChunkHeader header_{};
  std::size_t size_ = 0;  // 0 until the chunk has been checked
  std::byte const* x_ = nullptr;
  std::byte const* scales_ = nullptr;
  std::vector<std::uint32_t> next_;  // by stream: the next row
  std::vector<std::int32_t> numbers_;
  std::vector<std::uint16_t> experts_;
  std::vector<float> weights_;
  std::vector<Entry> entries_;
  std::vector<ChunkSlot> slots_;
  std::vector<ChunkRow> rows_;
};

}  // namespace switchyard::scale_out
