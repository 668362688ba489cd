// Dispatch and combine in throughput mode.
//
// N tokens of this rank, H hidden, K top_k, E experts, R ranks, L experts of this rank, n rows received.
// Experts are split over ranks in contiguous ranges; the first E % R ranks hold one more when E does not
// divide evenly.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "switchyard/communicator.hpp"
#include "switchyard/stream.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard {

namespace detail {
class ThroughputEngine;
class Routing;
}  // namespace detail

// Which processor moves the rows, and where tensors lie.
enum class EngineKind : std::uint8_t {
  automatic,  // SWITCHYARD_ENGINE; unless that says which: cuda when there is a GPU that this build can use, else
              // cpu
  cpu,
  cuda,
};

// The calling thread's current GPU; -1 where there is none that can be used.
[[nodiscard]] int current_gpu() noexcept;
// Waits until what is queued on a cudaStream_t of a GPU is done; 0: its default stream.
void wait_for_stream(int device, std::uintptr_t cuda_stream);

// Sizes must be equal on all ranks; construction checks that.
struct BufferOptions {
  std::int64_t max_tokens = 0;  // most tokens that any rank dispatches in one call
  std::int64_t hidden = 0;      // elements of a token
  int num_experts = 0;
  int top_k = 0;  // 1 to 64
  // Bytes of the symmetric heap of each rank; 0: two worst-case results of a dispatch. Address space only:
  // memory is taken when it is first written.
  std::size_t heap_bytes = 0;
  // Threads that move data for this rank (the CPU's counterpart of an SM count); 0: cores / ranks.
  int num_workers = 0;
  // Deadline of every wait for a peer; 0 takes SWITCHYARD_TIMEOUT_MS.
  std::chrono::milliseconds timeout{0};
  EngineKind engine = EngineKind::automatic;
  // CUDA engine: the GPU; -1: the calling thread's current one. Several ranks may share one.
  int device = -1;
  // CUDA engine: SMs that a call takes, at most the GPU's divided by the ranks that share it; 0: the fewest that
  // reach 95 % of the best by a model (docs/tuning.md).
  int num_sms = 0;
};

enum class OutputLayout : std::uint8_t {
  flat,      // one row per (token, rank), by source rank, then by token
  expanded,  // one row per (token, local expert), grouped by expert, then by source rank, then by token
};

// What a dispatch knows and its combine needs: who sent which token where. Copies share it.
class Handle {
 public:
  Handle() = default;
  explicit Handle(std::shared_ptr<detail::Routing const> routing) : routing_(std::move(routing)) {}
  [[nodiscard]] bool given() const noexcept { return routing_ != nullptr; }
  [[nodiscard]] std::int64_t num_tokens() const noexcept;     // N of the dispatch
  [[nodiscard]] std::int64_t num_recv_rows() const noexcept;  // without those of a worst case
  // [L], rounded up to expert_alignment; empty without topk_idx. In worst-case mode the only place that tells
  // (CPU engine; empty on the CUDA engine, whose host does not learn it).
  [[nodiscard]] std::vector<std::int64_t> const& tokens_per_expert() const noexcept;
  // [L], without the rounding; known where tokens_per_expert is.
  [[nodiscard]] std::vector<std::int64_t> const& real_tokens_per_expert() const noexcept;
  // CUDA engine: [R, 1 + most local experts of a rank] i32 in GPU memory, what came from each source: rows (flat
  // layout only), then top-k slots of each local expert. Written by the call, so that a stream may read after it
  // what the host does not know. Not given on the CPU engine, nor after a dispatch that ran in rounds.
  [[nodiscard]] Tensor recv_counts() const noexcept;
  // Cumulative rows received by source rank (R values); flat layout only.
  [[nodiscard]] std::vector<std::int64_t> const& recv_rows_end_by_rank() const noexcept;
  [[nodiscard]] std::shared_ptr<detail::Routing const> const& routing() const noexcept { return routing_; }

 private:
  std::shared_ptr<detail::Routing const> routing_;
};

// In host memory on the CPU engine, in the heap on the CUDA engine.
struct Layout {
  Tensor num_tokens_per_rank;    // [R] i32: rows this rank sends to each rank
  Tensor num_tokens_per_expert;  // [E] i32
  Tensor is_token_in_rank;       // [N, R] u8
};

// As Buffer::get_layout, of tensors in host memory, for num_experts split over num_ranks; needs no ranks at all.
[[nodiscard]] Layout get_layout(ConstTensorView topk_idx, int num_experts, int num_ranks);

struct DispatchArgs {
  // [N, H] bf16, f16, f32 or f8e4m3; rows may be strided, elements of a row must be adjacent.
  ConstTensorView x{};
  // [N, ceil(H/128)] f32, any strides: scales of an f8e4m3 x.
  ConstTensorView scales{};
  // [N, K] i64 or i32; -1: slot not used.
  ConstTensorView topk_idx{};
  // [N, K] f32.
  ConstTensorView topk_weights{};
  // [N, R] u8, instead of topk_idx: which ranks receive a token.
  ConstTensorView token_in_rank{};
  // Cached dispatch: routing (and layout) of an earlier dispatch; excludes the three above.
  Handle handle{};
  // Cast a bf16, f16 or f32 x to f8e4m3 with one f32 scale per token and 128 channels.
  bool cast_to_fp8 = false;
  OutputLayout layout = OutputLayout::flat;
  // expanded: every expert's rows start at a multiple of it. flat: tokens_per_expert is rounded up to it.
  int expert_alignment = 1;
  // expanded: write zeros into the rows that only pad.
  bool zero_padding = false;
  // > 0: the output has this many rows, allocated before the counts are known; the call that returns a
  // Pending does not wait for them. Rows past the real count have topk_idx -1. Needs topk_idx.
  std::int64_t num_worst_tokens = 0;
  // 0: as the buffer was made. The first is for the CPU engine, the second for the CUDA engine.
  int num_workers = 0;
  int num_sms = 0;
  // The dispatch starts after this event.
  Event after{};
  // CUDA engine: the cudaStream_t that inputs are written on and results are read on; 0: the default stream. The
  // call starts after what is queued there; what is queued there later starts after the call (unless it is
  // asynchronous).
  std::uintptr_t cuda_stream = 0;
};

struct Dispatched {
  Tensor x;             // [n, H] in the dtype of the input, or f8e4m3 after a cast
  Tensor scales;        // [n, ceil(H/128)] f32, for f8e4m3
  Tensor topk_idx;      // [n, K] in the dtype of the input: local expert ids, -1 where not ours; flat only
  Tensor topk_weights;  // flat: [n, K], 0 where not ours; expanded: [n]
  Tensor source_token;  // [n] i32: index of the token on its source rank, -1 in rows that only pad
  // [L], rounded up to expert_alignment; empty without topk_idx, and in worst-case mode (see Handle).
  std::vector<std::int64_t> tokens_per_expert;
  // Before an asynchronous dispatch is done it can be given to a combine that is queued behind it; what it
  // tells is valid afterwards.
  Handle handle;
};

struct CombineArgs {
  // [n, H] bf16, f16 or f32: expert outputs in the rows of the dispatch. Read in place when it is a tensor
  // of this buffer's heap, staged there first otherwise.
  ConstTensorView x{};
  Handle handle{};
  // flat [n, K] or expanded [n] f32: sent back and returned as combined topk_weights [N, K] (the gradient
  // of a dispatch's weights).
  ConstTensorView topk_weights{};
  // [n] f32: each row is multiplied by it (in f32) before the sum.
  ConstTensorView row_weights{};
  // [N, H], dtype of x: added (in f32) after the rows.
  ConstTensorView bias0{};
  ConstTensorView bias1{};
  // [N, H], dtype of x: where the result goes; a tensor of the heap is returned when not given.
  TensorView out{};
  int num_workers = 0;
  int num_sms = 0;
  Event after{};
  std::uintptr_t cuda_stream = 0;
};

struct Combined {
  Tensor x;             // [N, H]; not given when the caller passed `out`
  Tensor topk_weights;  // [N, K] f32, when weights were passed
};

// The result of an asynchronous call.
template <typename T>
class Pending {
 public:
  Pending(Event event, std::shared_ptr<T> value) : event_(std::move(event)), value_(std::move(value)) {}
  [[nodiscard]] Event const& event() const noexcept { return event_; }
  // Waits, rethrows errors, and hands out the result (once).
  T get() {
    event_.wait();
    return std::move(*value_);
  }
  // Without waiting: the handle, and tensors that are known beforehand (worst-case mode; CUDA engine: all).
  // Contents are valid after event().
  [[nodiscard]] T const& early() const noexcept { return *value_; }

 private:
  Event event_;
  std::shared_ptr<T> value_;
};

// All calls are collective: every rank makes the same calls in the same order, with equal options but any
// number of tokens. Inputs must stay valid and unchanged until the call (or its event) completes.
// Errors: InvalidArgument (on every rank, before anything moves), OutOfMemory (likewise), PeerLost and
// Timeout; after the last two the buffer refuses further work until reset().
class Buffer {
 public:
  Buffer(Communicator const& communicator, BufferOptions const& options);

  // What a dispatch by topk_idx [N, K] (i64 or i32) would send to whom. Not collective. An id out of range throws
  // InvalidArgument on the CPU engine; on the CUDA engine, whose host does not wait for the result, it counts as
  // not used. `cuda_stream`: as in DispatchArgs.
  [[nodiscard]] Layout get_layout(ConstTensorView topk_idx, std::uintptr_t cuda_stream = 0) const;
  // On the CPU engine it is done when it returns.
  [[nodiscard]] Pending<Layout> get_layout_async(ConstTensorView topk_idx, std::uintptr_t cuda_stream = 0) const;

  Dispatched dispatch(ConstTensorView x, ConstTensorView topk_idx, ConstTensorView topk_weights = {});
  Dispatched dispatch(DispatchArgs const& args);
  Pending<Dispatched> dispatch_async(DispatchArgs const& args);

  Tensor combine(ConstTensorView x, Handle const& handle);
  Combined combine(CombineArgs const& args);
  Pending<Combined> combine_async(CombineArgs const& args);

  // A tensor of the heap: what experts write here, combine reads without a copy. Not collective; throws OutOfMemory
  // on this rank only.
  [[nodiscard]] Tensor allocate(DType dtype, std::initializer_list<std::int64_t> shape);

  // Waits until all calls so far are done, and throws what they found. On the CUDA engine calls return before their
  // rows have moved; what goes wrong then is thrown by this, by the next call, or by waiting for an event.
  void synchronize();

  // Collective: brings the buffer back into use after a Timeout, when all ranks are alive again; harmless when
  // nothing has failed. Waits for queued work, whose errors its events and Pending still throw, and then for all
  // ranks, as long as the communicator's timeout says. What was handed out before stays valid; a handle of a
  // dispatch that failed is refused. On the CUDA engine replays of graphs must be over. No other thread may make
  // calls of this buffer meanwhile. When it throws the buffer stays unusable; after PeerLost, and after Timeout
  // (naming the rank that did not come), the communicator's collectives are, too.
  void reset();

  // CPU engine: the stream that asynchronous calls run on. Throws Unsupported on the CUDA engine.
  [[nodiscard]] Stream& stream();
  // CUDA engine: the cudaStream_t that calls run on; 0 on the CPU engine.
  [[nodiscard]] std::uintptr_t cuda_stream() const noexcept;
  [[nodiscard]] EngineKind engine() const noexcept;  // cpu or cuda
  [[nodiscard]] Communicator const& communicator() const noexcept;
  [[nodiscard]] BufferOptions const& options() const noexcept;  // CUDA engine: with the device that was chosen
  // Bytes of the heap in use and the most that were.
  [[nodiscard]] std::size_t heap_bytes_used() const noexcept;
  [[nodiscard]] std::size_t heap_bytes_peak() const noexcept;

  [[nodiscard]] std::shared_ptr<detail::ThroughputEngine> const& state() const noexcept { return state_; }

 private:
  std::shared_ptr<detail::ThroughputEngine> state_;
};

}  // namespace switchyard
