// The rows of a dispatch over nodes on the GPU: this rank's tokens leave in chunks for its rail peers and go to
// ranks of its own node, and what the ranks that it serves have sent is placed into results of its node. The host
// says where, in lists; kernels copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "call/hosted/dispatch_streams.hpp"
#include "call/hosted/row_mover.hpp"
#include "engine/cuda/throughput/over_nodes/batches.hpp"
#include "engine/cuda/throughput/over_nodes/lists.hpp"
#include "engine/cuda/throughput/over_nodes/travelling.hpp"
#include "layout/scale_out/chunk_reader.hpp"
#include "layout/scale_out/chunk_writer.hpp"

namespace switchyard::cuda {

// The lists of one launch.
struct MoveLists {
  List<MoveRow> rows;
  List<MoveTo> places;
  List<MoveSlot> slots;

  explicit MoveLists(std::span<std::byte> memory);
  // Whether any token still fits.
  [[nodiscard]] bool has_room() const noexcept;
};

class DispatchWork {
 public:
  // All of it must outlive the work. Throws InvalidArgument when a chunk has no room for one token.
  DispatchWork(PlaceTask const& task, TravellingRows const& rows, Batches& batches);

  // Returns when all has left and all has come, or another node refuses. Fails the buffer when that cannot be.
  void run();

 private:
  using Steps = std::vector<std::function<void()>>;
  // Tokens on their way to one node.
  struct Outgoing {
    scale_out::Way way;
    scale_out::ChunkWriter writer;
    std::optional<scale_out::Port::Room> room{};  // of the chunk that is being filled
    std::size_t bytes = 0;
  };
  // The chunk that is being placed.
  struct Placing {
    IncomingTokens* from = nullptr;
    scale_out::Port::Chunk chunk{};
    std::size_t next = 0;  // token
    scale_out::PlacedTokens placed{};
  };

  [[nodiscard]] bool cached() const { return task_.placed == nullptr; }
  [[nodiscard]] bool expanded() const { return routing_.layout == OutputLayout::expanded; }
  [[nodiscard]] std::optional<int> awaited();
  bool launch_some();
  void launch(MoveLists const& lists, Steps steps);
  void pad();
  void add_local(MoveLists& lists, std::int64_t tokens);
  void add_token(MoveLists& lists, std::int64_t token);
  void add_slots(MoveLists& lists, MoveTo& to, Route const& route, std::int64_t token) const;
  void fill_chunks(MoveLists& lists, Steps& steps);
  bool fill(Outgoing& outgoing, MoveLists& lists, Steps& steps);
  void place_chunks(MoveLists& lists, Steps& steps);
  bool next_chunk();
  void read_chunk();
  void place_token(MoveLists& lists);
  void end_chunk(Steps& steps);
  [[nodiscard]] MoveTo place_at(Destination const& to, std::int64_t row) const;
  void keep_places();
  void end_refused();
  void look(std::size_t rows);
  [[noreturn]] void fail(std::string const& text);

  PlaceTask const& task_;
  TravellingRows const& rows_;
  Batches& batches_;
  Crossing& crossing_;
  DispatchArgs const& args_;
  detail::Routing const& routing_;
  ReceiveShape const& shape_;
  DispatchStreams streams_;
  scale_out::ChunkReader reader_;
  std::vector<Outgoing> outgoing_;
  std::vector<IncomingTokens> incoming_;
  std::optional<Placing> placing_;
  std::size_t next_out_ = 0;  // whose turn it is
  std::size_t next_in_ = 0;
  std::int64_t next_local_ = 0;  // token of this rank whose local rows come next
};

}  // namespace switchyard::cuda
