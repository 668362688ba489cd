// What one node returns to this rank in a combine: sums of its tokens, in their order, out of chunks that come in
// any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "call/hosted/crossing.hpp"
#include "layout/scale_out/combine_chunk.hpp"
#include "layout/scale_out/node_tokens.hpp"

namespace switchyard {

struct ReturnedStream {
  scale_out::Way way;
  scale_out::NodeTokens const& tokens;
  std::size_t row_bytes = 0;
  std::vector<std::uint8_t> weights{};  // by token, f32 that come with its row; none where no weights travel
  std::uint64_t epoch = 0;
};

class ReturnedRows {
 public:
  explicit ReturnedRows(ReturnedStream stream) : stream_(std::move(stream)) {}

  [[nodiscard]] scale_out::Way const& way() const noexcept { return stream_.way; }
  [[nodiscard]] bool done() const noexcept { return next_ == stream_.tokens.size(); }
  // Whether the next row is that of `token`. To be asked for tokens in their order.
  [[nodiscard]] bool has(std::int64_t token) const noexcept {
    return !done() && stream_.tokens.tokens[next_] == token;
  }
  // The slots of that token there.
  [[nodiscard]] std::uint64_t slots() const noexcept { return stream_.tokens.masks[next_]; }
  // That row; nothing: it has not come.
  [[nodiscard]] std::optional<scale_out::CombineReader::Row> row() const noexcept;
  // Goes on to the next row. Returns a chunk that is used up, which the caller gives back.
  std::optional<scale_out::Port::Chunk> pass();

  // Takes chunks that have come; returns whether there were any. Throws InvalidArgument for a broken one.
  bool take(scale_out::Port& port);

 private:
  struct Held {
    scale_out::CombineReader reader;
    scale_out::Port::Chunk chunk;
    std::size_t end;  // behind its last token
  };
  [[nodiscard]] scale_out::CombineStream combine_stream() const noexcept;

  ReturnedStream stream_;
  std::vector<Held> held_;
  std::size_t next_ = 0;
};

}  // namespace switchyard
