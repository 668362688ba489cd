// A job of several nodes: how a rank's tokens get to other nodes and their sums back, and what this rank does on
// its node for the ranks of other nodes that it serves: places their rows and raises their flags, and sums for them
// what the node's experts have made. docs/low-latency.md, "Between nodes", has the protocol.
//
// Nothing moves but in turns: every wait of the engine takes them. over_nodes.cpp has turns and waits, send.. what
// this rank does as a source, place.. and serve.. what it does for others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "control/held_up.hpp"
#include "engine/cpu/low_latency/engine.hpp"
#include "engine/cpu/low_latency/rails.hpp"
#include "engine/cpu/low_latency/slot_store.hpp"
#include "layout/scale_out/chunk_reader.hpp"
#include "layout/scale_out/node_experts.hpp"
#include "layout/scale_out/node_tokens.hpp"
#include "layout/scale_out/notify.hpp"
#include "layout/scale_out/slot_chunk.hpp"

namespace switchyard::cpu {

class OverNodes {
 public:
  // Collective over the job. Nothing of the engine is used before its constructor is done.
  OverNodes(LowLatency& engine, std::shared_ptr<Job> const& job, LowLatencySetup const& setup);
  ~OverNodes();
  OverNodes(OverNodes const&) = delete;
  OverNodes& operator=(OverNodes const&) = delete;

  // A rank whose mask was taken off: a new one is said anew.
  void unmask(int rank) {
    if (int const neighbour = rails_.number_of(rank); neighbour >= 0) rails_.begin_with(neighbour);
  }
  // Every half of a call, first of all.
  void begin_half() { rails_.begin_half(); }
  // The halves of this rank's calls. The frame is that of the call already.
  void send(FrameUse const& use, LowLatencyDispatchArgs const& args);
  void end_dispatch(FrameUse const& use);
  void ask(FrameUse const& use, LowLatencyCombineArgs const& args);
  void end_combine(FrameUse const& use, LowLatencyCombineArgs const& args);
  // What a node has sent for a token in the frame's latest combine; null: nothing.
  [[nodiscard]] std::byte const* sum_of(FrameUse const& use, int node, std::int64_t token) const;

  // A turn of any wait. Throws what ended the call elsewhere, and for what a neighbour has sent that is wrong.
  void turn();
  // A wait of the engine begins.
  void begin_wait() noexcept { held_up_ = {}; }
  void say_held_up(int culprit) noexcept { rails_.say_held_up(culprit); }
  void say_failed(Error const& error, std::uint64_t halves_ahead) noexcept {
    rails_.say_failed(error, halves_ahead);
  }

  // The first of these ranks whose flags this rank raises itself and that is gone, or late when the deadline has
  // passed; -1: none.
  [[nodiscard]] int gone_or_late(std::span<int const> missing, Deadline const& deadline);
  // In a wait for a rank that this one serves: makes it go on without what holds it up, which is another rank of
  // this node, or the source itself. Fails the buffer, unless late peers are masked.
  void give_up_source(int source, char const* phase);

  // Step of a reset.
  void clean();
  [[nodiscard]] WireCount const& sent() const noexcept { return rails_.sent(); }

 private:
  using Header = scale_out::SlotChunkHeader;
  using Kind = scale_out::SlotChunkKind;
  using Bytes = scale_out::Bytes;

  // A row that this rank has placed for a source.
  struct Placed {
    std::int64_t slot = 0;  // of all slots of the bay
    int rank = 0;
    std::size_t weight = 0;  // number of its weight among those of the source for this node
  };
  // The tokens of one chunk, until all are there.
  struct Piece {
    std::uint32_t first = 0;
    std::vector<Placed> rows{};
    std::vector<std::uint8_t> rows_of{};   // by token
    std::vector<std::uint8_t> slots_of{};  // by token: its weights
  };
  // What a source that this rank serves has sent in a frame's latest dispatch, and its latest combine.
  struct FromSource {
    std::uint64_t epoch = 0;
    bool counted = false;
    scale_out::NodeCounts counts{};
    LocalRankMask refused = 0;   // ranks that take nothing from the source
    LocalRankMask refuses = 0;   // ranks that it sends nothing to
    LocalRankMask credited = 0;  // ranks whose frame it has got
    std::vector<int> bays{};     // by local rank
    bool claimed = false;
    std::vector<std::int64_t> begins{};  // by expert of the node: its first row there
    std::uint32_t placed = 0;            // tokens
    std::vector<Piece> pieces{};
    bool arrived = false;
    // Of all tokens, in their order.
    std::vector<Placed> rows{};
    std::vector<std::size_t> rows_end{};  // by token
    std::size_t slots = 0;
    // Combine.
    std::int64_t combine = -1;  // number of the one that it asks for
    std::vector<float> weights{};
    std::size_t weights_here = 0;
    bool asked = false;
    bool replied = false;
  };
  // What this rank has sent to a node in a frame's latest dispatch, and what came back.
  struct ToNode {
    bool open = false;
    scale_out::NodeTokens tokens{};
    std::vector<std::int32_t> index{};  // by token, its number among them; -1: it did not go there
    bool awaited = false;               // the sums of the latest combine
    std::vector<std::byte> rows{};
    std::uint32_t rows_here = 0;
    std::int64_t done_ns = 0;
  };
  struct OfFrame {
    SlotRows rows{};
    bool streamed = false;  // rows are stored past the caches
    scale_out::DispatchTerms terms{};
    std::optional<scale_out::ChunkReader> reader{};
    std::vector<ToNode> to{};        // by way
    std::vector<FromSource> from{};  // by rank served
    std::shared_ptr<Leaving> rows_leave{};
    std::shared_ptr<Leaving> sums_leave{};
  };

  [[nodiscard]] OfFrame& of(int frame) { return *frames_[static_cast<std::size_t>(frame)]; }
  [[nodiscard]] OfFrame const& of(int frame) const { return *frames_[static_cast<std::size_t>(frame)]; }
  [[nodiscard]] scale_out::NodeExperts const& experts_of(int node) const {
    return experts_[static_cast<std::size_t>(node)];
  }
  [[nodiscard]] scale_out::NodeExperts const& own_experts() const { return experts_of(slots_.node().node()); }
  [[nodiscard]] int rank_of(int local) const { return slots_.node().rank_of(local); }
  [[nodiscard]] bool is_masked(int neighbour) const { return engine_.masked(rails_.member(neighbour).rank); }
  [[nodiscard]] LocalRankMask everybody() const;
  [[nodiscard]] LocalRankMask masked_on(int node) const;
  [[noreturn]] void fail(Error const& error) { engine_.signals_.fail(error); }

  // over_nodes.cpp
  void turn_or_fail();
  void note_given_up();
  bool use(int neighbour, Bytes chunk);
  bool use_of_source(int neighbour, Header const& header, Bytes chunk);
  void say_held_up_by(int neighbour, Deadline const& deadline, HeldUp& held_up);
  void part_from(int neighbour);
  void await(char const* phase, std::function<int()> const& missing);
  void give_up(int neighbour, bool lost, char const* phase);
  [[nodiscard]] Error late(int neighbour, char const* phase) const;
  [[noreturn]] void refuse_digest(int rank, char const* phase, char const* options) const;
  [[nodiscard]] int index_of_way(int neighbour) const;
  [[nodiscard]] int index_of_source(int neighbour) const;

  // over_nodes_send.cpp
  [[nodiscard]] Header header_of(Kind kind, FrameUse const& use) const;
  struct RowStream;
  void pack(FrameUse const& use, std::size_t way, LowLatencyDispatchArgs const& args);
  void say_masked(int neighbour, Header header);
  static std::size_t write_rows(std::span<std::byte> memory, Header& header, RowStream& rows);
  void send_weights(FrameUse const& use, std::size_t way, LowLatencyCombineArgs const& args);
  void let_the_last_leave();
  [[nodiscard]] int holds(Leaving& leaving) const;
  void take_sums(std::size_t way, Header const& header, Bytes chunk);
  static void copy_sums(ToNode& to, std::uint64_t epoch, OutputShape const& outputs, int rank, Bytes chunk);
  [[nodiscard]] std::vector<std::int32_t> ids_of(SlotRoutes const& routes) const;

  // over_nodes_place.cpp
  bool take_rows(std::size_t source, Header const& header, Bytes chunk);
  void read_counts(std::size_t source, FromSource& from, Header const& header, Bytes chunk);
  [[nodiscard]] bool take_credits(std::size_t source, FromSource& from, Header const& header);
  void claim(std::size_t source, FromSource& from, int frame);
  void place(std::size_t source, FromSource& from, Header const& header, Bytes tokens);
  void place_token(int source, FromSource const& from, OfFrame const& frame, scale_out::ChunkToken const& token,
                   Piece& piece);
  void store_ids(SlotStore const& store, SlotPlace const& to, int local, scale_out::ChunkToken const& token) const;
  void order_pieces(FromSource& from) const;
  void raise_arrived(std::size_t source, FromSource& from, Header const& header);
  [[nodiscard]] int holds_up(int source) const;

  // over_nodes_serve.cpp
  bool take_asks(std::size_t source, Header const& header, Bytes chunk);
  [[nodiscard]] bool refuse_sums(std::size_t source, Header const& header);
  void serve();
  [[nodiscard]] bool outputs_ready(int frame, FrameUse const& use);
  void reply(int frame, std::size_t source);
  void gather(FromSource const& from, std::size_t token, OutputSum& sum) const;

  LowLatency& engine_;
  Slots const& slots_;
  std::shared_ptr<Job> job_;
  std::vector<scale_out::NodeExperts> experts_;  // by node
  Rails rails_;
  bool tolerant_;   // late peers are masked
  HeldUp held_up_;  // by a source, in a wait of the engine
  std::vector<std::unique_ptr<OfFrame>> frames_;
};

}  // namespace switchyard::cpu
