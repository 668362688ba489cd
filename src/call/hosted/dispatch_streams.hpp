// What the chunks of a dispatch carry, whoever moves their rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "call/hosted/row_mover.hpp"
#include "layout/scale_out/bytes.hpp"
#include "layout/scale_out/chunk_reader.hpp"
#include "layout/scale_out/chunk_writer.hpp"
#include "layout/scale_out/dispatch_format.hpp"
#include "layout/scale_out/node_tokens.hpp"
#include "layout/scale_out/placed_tokens.hpp"

namespace switchyard {

class DispatchStreams {
 public:
  // The task must outlive it, and have a crossing.
  explicit DispatchStreams(PlaceTask const& task);
  DispatchStreams(DispatchStreams const&) = delete;
  DispatchStreams& operator=(DispatchStreams const&) = delete;

  [[nodiscard]] scale_out::DispatchTerms const& terms() const noexcept { return terms_; }
  // What this rank sends to a node.
  [[nodiscard]] scale_out::DispatchStream to(int node) const;
  // What is known beforehand of the rank that is served as number `i`: counts; along a handle where its rows are.
  [[nodiscard]] scale_out::ServedTokens const& served(std::size_t i) const;

 private:
  PlaceTask const& task_;
  scale_out::DispatchTerms terms_;
  std::vector<scale_out::NodeTokens> by_rank_;  // along a handle, without ids: tokens by node
};

// Tokens that come from one rank that is served.
struct IncomingTokens {
  scale_out::Served from;
  scale_out::ServedTokens const& known;          // as DispatchStreams::served()
  FirstRows const* first_rows = nullptr;         // null along a handle
  std::uint64_t tokens = 0;                      // that have come
  std::vector<scale_out::PlacedPiece> pieces{};  // chunks in the order in which they came

  [[nodiscard]] bool all_here() const noexcept { return tokens == known.counts.tokens; }
};

// By rank that is served. Task and streams must outlive them.
std::vector<IncomingTokens> incoming_tokens(PlaceTask const& task, DispatchStreams const& streams);
// Reads one of its chunks, and checks it also against what else has come. Throws InvalidArgument, naming the
// source.
void read_chunk(scale_out::ChunkReader& reader, scale_out::Bytes chunk, IncomingTokens const& from,
                std::uint64_t epoch);
// Adds a token of a chunk behind those in `placed`, of a dispatch that is not along a handle.
void add_placed(IncomingTokens const& from, scale_out::ChunkToken const& token, OutputLayout layout,
                scale_out::PlacedTokens& placed);
// Puts what has been placed where the handle keeps it. Throws InvalidArgument, naming the source, when tokens are
// missing.
void keep_places(std::vector<IncomingTokens>& incoming, std::vector<scale_out::ServedTokens>& placed);

}  // namespace switchyard
