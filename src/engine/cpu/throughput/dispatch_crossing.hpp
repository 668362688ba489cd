// The rows of a dispatch that cross between nodes: this rank's tokens leave in chunks for its rail peers, and what
// the ranks that it serves have sent is placed into the results of its node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "call/throughput.hpp"
#include "engine/cpu/row_loader.hpp"
#include "engine/cpu/throughput/crossing.hpp"
#include "engine/cpu/throughput/local_rows.hpp"
#include "engine/cpu/throughput/place.hpp"
#include "layout/scale_out/chunk_reader.hpp"
#include "layout/scale_out/chunk_writer.hpp"

namespace switchyard::cpu {

// The first rows of one source's streams, by local rank, then by stream: [0] of the rank, [1 + e] of its experts.
using FirstRows = std::vector<std::vector<std::int64_t>>;

// All of it must outlive the crossing.
struct DispatchBetween {
  Crossing& crossing;
  Signals& signals;
  DispatchCall const& call;
  std::vector<Destination> const& destinations;  // by rank of the job
  std::vector<FirstRows> const& first_rows;      // by rank that is served; of a dispatch that is not cached
  std::vector<scale_out::ServedTokens>* placed;  // is filled in, counts first; null: cached, as the handle says
  std::uint64_t epoch = 0;
  std::int64_t max_tokens = 0;
};

class DispatchCrossing {
 public:
  // Throws InvalidArgument when a chunk has no room for one token.
  explicit DispatchCrossing(DispatchBetween const& between);

  // What one thread does until all has left and all has come, or another node refuses. It writes rows of the own
  // node meanwhile. Fails the buffer when that cannot be. When it returns, the caller may release the flags.
  void run(LocalRows& local);

 private:
  // Tokens on their way to one node.
  struct Outgoing {
    scale_out::Way way;
    scale_out::ChunkWriter writer;
  };
  // Tokens that come from one rank.
  struct Incoming {
    scale_out::Served from;
    scale_out::ServedTokens const& known;  // counts; cached: where its rows are
    FirstRows const* first_rows;
    std::uint64_t tokens = 0;  // that have come
    struct Piece {
      std::uint32_t first;
      scale_out::PlacedTokens placed;
    };
    std::vector<Piece> pieces{};  // chunks in the order in which they came
  };

  [[nodiscard]] bool cached() const { return between_.placed == nullptr; }
  [[nodiscard]] std::vector<scale_out::NodeTokens> const& tokens_by_node();
  void poll() { crossing_.poll(between_.signals); }
  // Who is waited for: the number of a neighbour; nothing when all is done.
  [[nodiscard]] std::optional<int> awaited();
  bool send_one(LocalRows& local);
  void fill(Outgoing& outgoing, scale_out::Port::Room const& room, LocalRows& local);
  bool place_one();
  void place(Incoming& from, scale_out::Port::Chunk const& chunk);
  void place_new(Incoming& from);
  void place_again(Incoming const& from);
  void place_token(scale_out::ChunkToken const& token, std::span<scale_out::PlacedRow const> rows);
  void store_ids(Destination const& to, scale_out::PlacedRow const& row, scale_out::ChunkToken const& token) const;
  void keep_places();
  void keep_places_of(Incoming& from, scale_out::PlacedTokens& to);
  [[noreturn]] void fail(std::string const& text);

  DispatchBetween between_;
  Crossing& crossing_;
  DispatchArgs const& args_;
  detail::Routing const& routing_;
  ReceiveShape const& shape_;
  std::vector<scale_out::NodeTokens> by_rank_;  // cached without ids: tokens by node
  scale_out::DispatchTerms terms_;
  scale_out::ChunkReader reader_;
  RowLoader loader_;
  std::vector<Outgoing> outgoing_;
  std::vector<Incoming> incoming_;
  std::size_t next_out_ = 0;  // whose turn it is
  std::size_t next_in_ = 0;
};

}  // namespace switchyard::cpu
