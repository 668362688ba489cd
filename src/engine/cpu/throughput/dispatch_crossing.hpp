// The rows of a dispatch that cross between nodes: this rank's tokens leave in chunks for its rail peers, and what
// the ranks that it serves have sent is placed into the results of its node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "call/hosted/crossing.hpp"
#include "call/hosted/dispatch_streams.hpp"
#include "call/hosted/row_mover.hpp"
#include "call/throughput.hpp"
#include "engine/cpu/row_loader.hpp"
#include "engine/cpu/throughput/local_rows.hpp"
#include "engine/cpu/throughput/place.hpp"
#include "layout/scale_out/chunk_reader.hpp"
#include "layout/scale_out/chunk_writer.hpp"

namespace switchyard::cpu {

class DispatchCrossing {
 public:
  // `task` must outlive it. Throws InvalidArgument when a chunk has no room for one token.
  explicit DispatchCrossing(PlaceTask const& task);

  // What one thread does until all has left and all has come, or another node refuses. It writes rows of the own
  // node meanwhile. Fails the buffer when that cannot be. When it returns, the caller may release the flags.
  void run(LocalRows& local);

 private:
  // Tokens on their way to one node.
  struct Outgoing {
    scale_out::Way way;
    scale_out::ChunkWriter writer;
  };

  [[nodiscard]] bool cached() const { return task_.placed == nullptr; }
  void poll() { crossing_.poll(task_.signals); }
  // Who is waited for: the number of a neighbour; nothing when all is done.
  [[nodiscard]] std::optional<int> awaited();
  bool send_one(LocalRows& local);
  void fill(Outgoing& outgoing, scale_out::Port::Room const& room, LocalRows& local);
  bool place_one();
  void place(IncomingTokens& from, scale_out::Port::Chunk const& chunk);
  void place_new(IncomingTokens& from);
  void place_again(IncomingTokens const& from);
  void place_token(scale_out::ChunkToken const& token, std::span<scale_out::PlacedRow const> rows);
  void store_ids(Destination const& to, scale_out::PlacedRow const& row, scale_out::ChunkToken const& token) const;
  void keep_places();
  [[noreturn]] void fail(std::string const& text);

  PlaceTask const& task_;
  Crossing& crossing_;
  DispatchArgs const& args_;
  detail::Routing const& routing_;
  ReceiveShape const& shape_;
  std::size_t rows_between_looks_;
  DispatchStreams streams_;
  scale_out::ChunkReader reader_;
  RowLoader loader_;
  std::vector<Outgoing> outgoing_;
  std::vector<IncomingTokens> incoming_;
  std::size_t next_out_ = 0;  // whose turn it is
  std::size_t next_in_ = 0;
};

}  // namespace switchyard::cpu
