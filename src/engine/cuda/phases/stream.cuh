// Stream: rows that peers cannot read where they lie are copied into the own heap while the peers already pull
// them. Each batch of rows has a flag at its owner, raised when the batch is there. Rows go in the order in which
// their sources ask for them: of each source's rows a batch in turn.
#pragma once

#include "engine/cuda/comm/peers.cuh"
#include "engine/cuda/ptx/bulk_copy.cuh"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// Batches by source: those whose first row is the source's.
struct StreamBatches {
  int begin[max_node_ranks];
  int end[max_node_ranks];

  // By all threads of the block.
  __device__ void find(CombineArgs const& args) {
    int const bits = args.stream.batch_bits;
    int const round_up = (1 << bits) - 1;
    std::int32_t const* const rows_end = args.handle.recv_ends;
    int const source = static_cast<int>(threadIdx.x);
    if (source < args.peers.world) {
      begin[source] = ((source > 0 ? rows_end[source - 1] : 0) + round_up) >> bits;
      end[source] = (rows_end[source] + round_up) >> bits;
      // This rank reads its own rows where they are; its last batch may hold rows of the next source, too.
      bool const shared = end[source] > begin[source] && end[source] << bits > rows_end[source];
      if (source == args.peers.rank) begin[source] = end[source] - (shared ? 1 : 0);
    }
    __syncthreads();
  }
  [[nodiscard]] __device__ int most(int world) const {
    int most = 0;
    for (int source = 0; source < world; ++source) most = max(most, end[source] - begin[source]);
    return most;
  }
};

// The pieces that a warp copies, one after the other.
class StreamCursor {
 public:
  __device__ StreamCursor(CombineArgs const& args, StreamBatches const& batches, int warp)
      : args_(args),
        batches_(batches),
        turns_(batches.most(args.peers.world)),
        turn_(warp * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x)) {
    find_batch();
  }

  [[nodiscard]] __device__ bool done() const { return row_ < 0; }
  [[nodiscard]] __device__ int batch() const { return batch_; }
  [[nodiscard]] __device__ std::int64_t row() const { return row_; }
  [[nodiscard]] __device__ std::uint32_t offset() const { return offset_; }
  [[nodiscard]] __device__ std::uint32_t bytes() const {
    return min(args_.stream.piece, args_.x.row_bytes - offset_);
  }
  [[nodiscard]] __device__ bool ends_batch() const {
    return offset_ + args_.stream.piece >= args_.x.row_bytes && row_ + 1 >= rows_end_;
  }

  __device__ void advance_batch() {
    turn_ += stream_warps * static_cast<int>(gridDim.x);
    find_batch();
  }
  __device__ void advance() {
    offset_ += args_.stream.piece;
    if (offset_ < args_.x.row_bytes) return;
    offset_ = 0;
    if (++row_ < rows_end_) return;
    turn_ += stream_warps * static_cast<int>(gridDim.x);
    find_batch();
  }

 private:
  // Turns count batches of the first source, the second, and so on, then again the first's.
  __device__ void find_batch() {
    int const world = args_.peers.world;
    for (;; turn_ += stream_warps * static_cast<int>(gridDim.x)) {
      int const number = turn_ / world;
      int const source = turn_ % world;
      row_ = -1;
      if (number >= turns_) return;
      batch_ = batches_.begin[source] + number;
      if (batch_ >= batches_.end[source]) continue;
      row_ = std::int64_t{batch_} << args_.stream.batch_bits;
      rows_end_ = min(row_ + (1 << args_.stream.batch_bits), args_.rows);
      return;
    }
  }

  CombineArgs const& args_;
  StreamBatches const& batches_;
  int turns_;
  int turn_;
  int batch_ = 0;
  std::int64_t row_ = -1;
  std::int64_t rows_end_ = 0;
  std::uint32_t offset_ = 0;
};

// By one warp, for the lanes that copy: tells peers of complete batches. Apart from them, because a fence waits for
// all that is under way. Acquire: the count pairs with publish(). Release: fence and store pair with wait_for_row()
// of the peers.
__device__ inline void publish_batches(StreamCursor cursor, int const volatile* completed, CombineArgs const& args,
                                       std::uint64_t epoch) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  bool const serves = lane < stream_warps;
  std::uint64_t* const flags = staged_of(args.peers, args.peers.rank);
  for (int told = 0; __any_sync(~0U, serves && !cursor.done());) {
    int const there = serves ? completed[lane] : 0;
    if (!__any_sync(~0U, there > told)) continue;
    ptx::fence_sys();
    for (; told < there; ++told, cursor.advance_batch()) ptx::store_relaxed(flags + cursor.batch(), epoch);
  }
}

// By one lane of a warp; the ring is the warp's. Stores of two turns may still read their stages while the other
// stages are loaded.
class StreamLane {
 public:
  __device__ StreamLane(CombineArgs const& args, std::byte* ring, std::uint64_t* barriers, int volatile* completed)
      : args_(args), ring_(ring), barriers_(barriers), completed_(completed) {
    for (int stage = 0; stage < args.stream.stages; ++stage) ptx::barrier_init(&barriers_[stage], 1);
    ptx::fence_barrier_init();
  }

  __device__ void run(StreamCursor now) {
    StreamCursor ahead = now;
    std::byte* const to = heap_of(args_.peers, args_.peers.rank) + args_.x.heap_offset;
    for (;;) {
      while (loaded_ < args_.stream.stages - stores_in_flight && !ahead.done()) load(ahead);
      if (loaded_ == 0) break;
      ptx::barrier_wait(&barriers_[stage_], parity_);  // pairs with the completion of load()'s copy
      ptx::bulk_store(to + now.row() * args_.x.row_bytes + now.offset(), piece(stage_), now.bytes());
      ptx::bulk_commit();
      if (++stage_ == args_.stream.stages) {
        stage_ = 0;
        parity_ ^= 1U;
      }
      --loaded_;
      if (waiting_ >= 0 && --turns_to_wait_ == 0) {
        ptx::bulk_wait<publish_lag>();
        publish();
      }
      if (now.ends_batch()) {
        if (waiting_ >= 0) {
          ptx::bulk_wait_all();
          publish();
        }
        waiting_ = now.batch();
        turns_to_wait_ = publish_lag;
      }
      ptx::bulk_wait_read<stores_in_flight>();
      now.advance();
    }
    ptx::bulk_wait_all();
    publish();
  }

 private:
  static constexpr int stores_in_flight = 2;
  // A batch has at least as many turns: one waits to be told at a time.
  static constexpr int publish_lag = 3;

  // Pairs with publish_batches().
  __device__ void publish() {
    if (waiting_ < 0) return;
    __threadfence_block();
    *completed_ = *completed_ + 1;
    waiting_ = -1;
  }
  [[nodiscard]] __device__ std::byte* piece(int stage) const {
    return ring_ + static_cast<std::size_t>(stage) * args_.stream.piece;
  }

  __device__ void load(StreamCursor& ahead) {
    ++loaded_;
    ptx::barrier_expect(&barriers_[next_], ahead.bytes());
    ptx::bulk_load(piece(next_), args_.x.data + ahead.row() * args_.x.row_stride + ahead.offset(), ahead.bytes(),
                   &barriers_[next_]);
    next_ = next_ + 1 < args_.stream.stages ? next_ + 1 : 0;
    ahead.advance();
  }

  CombineArgs const& args_;
  std::byte* ring_;
  std::uint64_t* barriers_;
  int volatile* completed_;
  int loaded_ = 0;
  int stage_ = 0;     // to store from
  int waiting_ = -1;  // batch whose stores are under way
  int turns_to_wait_ = 0;
  int next_ = 0;  // stage to load
  std::uint32_t parity_ = 0;
};

#endif

}  // namespace switchyard::cuda
