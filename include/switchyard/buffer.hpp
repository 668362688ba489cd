// Dispatch and combine in throughput mode.
//
// In shapes: N tokens of this rank, H hidden, K top_k, E experts, R ranks, L experts of this rank, n rows that this
// rank receives. Experts are split over ranks in contiguous ranges; when E is not a multiple of R, the first E % R
// ranks hold one more.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "switchyard/communicator.hpp"
#include "switchyard/stream.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard {

namespace detail {
class Routing;
class ThroughputEngine;
}  // namespace detail

// Which processor moves the rows. Tensors of the CPU engine lie in host memory, those of the CUDA engine in the
// memory of its GPU.
enum class EngineKind : std::uint8_t {
  automatic,  // what SWITCHYARD_ENGINE says; by default cuda where this build can use a GPU, else cpu
  cpu,
  cuda,
};

// The calling thread's current GPU; -1 where there is none that this build can use.
[[nodiscard]] int current_gpu() noexcept;
// Waits until what has been queued on `cuda_stream` (a cudaStream_t; 0: the default stream) of that GPU is
// complete. Throws Unsupported in a build without CUDA, and SystemError.
void wait_for_stream(int device, std::uintptr_t cuda_stream);
// Whether what is queued on `cuda_stream` becomes part of a graph. Throws as wait_for_stream() does.
[[nodiscard]] bool is_captured(int device, std::uintptr_t cuda_stream);

// What has been queued on `cuda_stream` (a cudaStream_t) reads the memory at `data`, which belongs to a result of a
// call on a GPU. The memory is not used again before that is complete. Without it, work on other streams than those
// of calls must be complete, or come before the next call in the order of streams, when a result is released.
void record_stream(void const* data, std::uintptr_t cuda_stream) noexcept;

// CUDA engine: what to do when a heap must grow and the GPU has no memory left; a framework can free what it
// caches. It replaces what was set before, may be called by any thread that makes a call, and must not make one.
void on_memory_shortage(std::function<void()> relief);

// All ranks must pass equal max_tokens, hidden, num_experts, top_k and engine, and those that say so below; the
// constructor checks that.
struct BufferOptions {
  std::int64_t max_tokens = 0;  // most tokens that any rank dispatches in one call
  std::int64_t hidden = 0;      // H: elements of a token
  int num_experts = 0;          // E
  int top_k = 0;                // K: 1 to 64
  // Limit of each rank's symmetric heap in bytes; 0: SWITCHYARD_HEAP_BYTES, and without that none but the memory
  // that there is. CUDA engine: a heap without a limit grows when results need it (initial_heap_bytes says from
  // what), and trim() makes it smaller. CPU engine: it has addresses for all memory of the machine, as far as
  // every rank may map so much, and takes the memory itself when it is first written.
  std::size_t heap_bytes = 0;
  // CUDA engine: what a heap without a limit has at first; 0: room for two worst-case results of a dispatch, and
  // half of this rank's share of the free memory at most.
  std::size_t initial_heap_bytes = 0;
  // CPU engine: threads that move data for this rank, as SMs do on a GPU; 0: cores divided by ranks.
  int num_workers = 0;
  // Deadline of every wait for a peer; 0: SWITCHYARD_TIMEOUT_MS.
  std::chrono::milliseconds timeout{0};
  EngineKind engine = EngineKind::automatic;
  // CUDA engine: the GPU; -1: the calling thread's current one. Several ranks may share a GPU.
  int device = -1;
  // CUDA engine: SMs that a call takes, at most the GPU's divided by the ranks that share it; 0: the fewest that
  // reach 95 % of the best throughput by a model (docs/tuning.md).
  int num_sms = 0;
  // CUDA engine: whether the host of a combine, and of a dispatch along a handle, waits until all ranks have agreed
  // on the call, so that the call itself throws when they do not, on every rank, and the buffer goes on. False:
  // these calls return as soon as they are queued, whatever the GPU still has to do before. Then only a rank that
  // refuses throws at once; the others throw from their next call or wait for an event, and the buffer has failed
  // until reset(). All ranks must pass the same.
  bool errors_at_once = true;
  // Jobs of several nodes: what a combine sends from one node to another, which is the sum of a token's rows there.
  // False: it is rounded to the dtype of the outputs, which is half of the bytes or fewer; true: it stays f32, so
  // that every output is rounded once, at the end. All ranks must pass the same. Without effect on one node.
  bool f32_partials = false;
};

enum class OutputLayout : std::uint8_t {
  flat,      // a row for each (token, rank), by source rank, then by token
  expanded,  // a row for each (token, local expert), grouped by expert, then by source rank, then by token
};

// What a dispatch knows and its combine needs: which rank sent which token where. Copies share it. A handle may
// outlive its buffer.
class Handle {
 public:
  Handle() = default;
  explicit Handle(std::shared_ptr<detail::Routing const> routing) : routing_(std::move(routing)) {}
  [[nodiscard]] bool given() const noexcept { return routing_ != nullptr; }
  [[nodiscard]] std::int64_t num_tokens() const noexcept;  // N of the dispatch
  // Rows that were received; in worst-case mode without those that are left over.
  [[nodiscard]] std::int64_t num_recv_rows() const noexcept;
  // [L] rows of each local expert, rounded up to expert_alignment; empty without topk_idx. In worst-case mode only
  // the handle says this, and only on the CPU engine: the host of the CUDA engine does not learn it.
  [[nodiscard]] std::vector<std::int64_t> const& tokens_per_expert() const noexcept;
  // [L], without the rounding; known where tokens_per_expert is.
  [[nodiscard]] std::vector<std::int64_t> const& real_tokens_per_expert() const noexcept;
  // CUDA engine: [R, 1 + most local experts of a rank] i32 in GPU memory, what came from each source: its rows
  // (flat layout only), then the top-k slots of each local expert. The call writes it, so a stream may read after
  // the call what the host does not know. Not given on the CPU engine, nor after a dispatch that ran in rounds.
  [[nodiscard]] Tensor recv_counts() const noexcept;
  // [R] cumulative rows received by source rank; flat layout only.
  [[nodiscard]] std::vector<std::int64_t> const& recv_rows_end_by_rank() const noexcept;
  [[nodiscard]] std::shared_ptr<detail::Routing const> const& routing() const noexcept { return routing_; }

 private:
  std::shared_ptr<detail::Routing const> routing_;
};

// What a dispatch would send. The tensors lie in host memory on the CPU engine, in the heap on the CUDA engine.
struct Layout {
  Tensor num_tokens_per_rank;    // [R] i32: rows that this rank sends to each rank
  Tensor num_tokens_per_expert;  // [E] i32
  Tensor is_token_in_rank;       // [N, R] u8
  // [nodes] i32: tokens with an expert on a node, which cross to it once each; the own node counts as any other.
  // Not given where all ranks are on one node.
  Tensor num_tokens_per_node{};
};

// The same as Buffer::get_layout for num_experts that are split over num_ranks. It needs no ranks at all;
// `topk_idx` [N, K] i64 or i32 lies in host memory. Throws InvalidArgument.
[[nodiscard]] Layout get_layout(ConstTensorView topk_idx, int num_experts, int num_ranks);

struct DispatchArgs {
  // [N, H] bf16, f16, f32 or f8e4m3. Rows may be strided; the elements of a row must be adjacent.
  ConstTensorView x{};
  // [N, ceil(H/128)] f32, any strides: the scales of an f8e4m3 x. Or i32 with 1 to as many columns: packed
  // exponents, say, which arrive as they are.
  ConstTensorView scales{};
  // [N, K] i64 or i32; -1: the slot is not used.
  ConstTensorView topk_idx{};
  // [N, K] f32.
  ConstTensorView topk_weights{};
  // [N, R] u8, instead of topk_idx: which ranks receive a token.
  ConstTensorView token_in_rank{};
  // Makes a cached dispatch, with the routing and layout of an earlier one. It excludes token_in_rank. A topk_idx
  // must be that of the earlier dispatch: it and the weights then travel again, and nothing is routed by it.
  Handle handle{};
  // Casts a bf16, f16 or f32 x to f8e4m3, with one f32 scale for each token and 128 channels.
  bool cast_to_fp8 = false;
  OutputLayout layout = OutputLayout::flat;
  // expanded: each expert's rows start at a multiple of it. flat: tokens_per_expert is rounded up to it.
  int expert_alignment = 1;
  // expanded: writes zeros into the rows that only pad.
  bool zero_padding = false;
  // Above 0: worst-case mode. The output has this many rows, which are allocated before the counts are known, so
  // that dispatch_async() does not wait for them. Rows past the real count have topk_idx -1. Needs topk_idx.
  std::int64_t num_worst_tokens = 0;
  // 0: as in the buffer's options. num_workers is for the CPU engine, num_sms for the CUDA engine.
  int num_workers = 0;
  int num_sms = 0;
  // [L] i32 or i64: the rows that each expert of this rank receives, without padding, are added to it. Needs
  // topk_idx, here or in the dispatch of the handle. Valid when the call is complete, until when the memory must
  // live; undefined when the call has failed.
  TensorView received_per_expert{};
  // CUDA engine: the call makes a copy of topk_idx beside its work, where that takes no waiting: see
  // Dispatched::ids.
  bool keep_ids = false;
  // The dispatch starts after this event.
  Event after{};
  // CUDA engine: the cudaStream_t on which inputs are written and results are read; 0: the default stream. The call
  // starts after what has been queued there. What is queued there later starts after the call, unless that is
  // asynchronous.
  std::uintptr_t cuda_stream = 0;
};

struct Dispatched {
  Tensor x;             // [n, H] in the dtype of the input, or f8e4m3 after a cast
  Tensor scales;        // [n, ceil(H/128)] f32, for f8e4m3; with i32 scales the same columns of i32
  Tensor topk_idx;      // flat: [n, K] in the dtype of the input, local expert ids, -1 where the expert is not ours
  Tensor topk_weights;  // flat: [n, K] f32, 0 where the expert is not ours; expanded: [n] f32
  Tensor source_token;  // [n] i32: index of the token on its source rank, -1 in rows that only pad
  // [N, K]: a copy of topk_idx, which DispatchArgs::keep_ids asked for. Not given on the CPU engine, in a cached
  // dispatch, while a graph is captured, after a dispatch in rounds, and where the heap has no room at once.
  Tensor ids;
  // [L], rounded up to expert_alignment; empty without topk_idx, and in worst-case mode (see Handle).
  std::vector<std::int64_t> tokens_per_expert;
  // Until an asynchronous dispatch is complete, its handle can only be given to a combine that is queued behind it.
  Handle handle;
};

struct CombineArgs {
  // [n, H] bf16, f16 or f32: expert outputs in the rows of the dispatch. Read in place when it is a tensor of this
  // buffer's heap; otherwise it is copied there first.
  ConstTensorView x{};
  Handle handle{};
  // flat: [n, K] f32, expanded: [n] f32. Sent back and returned as [N, K]: the gradient of a dispatch's weights,
  // where a slot's value comes from the rank that owns its expert.
  ConstTensorView topk_weights{};
  // Flat layout: values of a slot are summed over all ranks that have the token, whoever owns its expert, and K may
  // be any number up to 64; the routes need no topk_idx. It is what DeepEP's first interface does.
  bool weights_of_all_ranks = false;
  // [n] f32: each row is multiplied by it (in f32) before the sum.
  ConstTensorView row_weights{};
  // [N, H] in the dtype of x. Sums are taken in f32: biases, then the token's rows in the order of slots, where a
  // row that stands for several slots comes at the last of them (by rank after a dispatch by token_in_rank).
  ConstTensorView bias0{};
  ConstTensorView bias1{};
  // [N, H] in the dtype of x: where the result goes. When it is not given, a tensor of the heap is returned.
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
  // Waits, rethrows errors, and hands out the result. To be called once.
  T get() {
    event_.wait();
    return std::move(*value_);
  }
  // Does not wait: the handle, and those tensors that are known beforehand (CPU engine: in worst-case mode; CUDA
  // engine: all). Their contents are valid after event().
  [[nodiscard]] T const& early() const noexcept { return *value_; }

 private:
  Event event_;
  std::shared_ptr<T> value_;
};

// Calls are collective unless they say otherwise: every rank makes the same calls in the same order, with equal
// options but any number of tokens. One thread at a time makes calls. Inputs must stay valid and unchanged until
// the call, or its event, is complete.
//
// Errors: InvalidArgument and OutOfMemory are thrown on every rank before anything moves, and the buffer stays
// usable; where hosts do not wait for a call (num_worst_tokens, errors_at_once = false) only if all ranks refuse
// it. After PeerLost, Timeout or SystemError it refuses further work until reset(). Copies share the buffer; the
// last one to go waits for work that is still queued.
class Buffer {
 public:
  Buffer(Communicator const& communicator, BufferOptions const& options);

  // Not collective. What a dispatch by topk_idx [N, K] (i64 or i32) would send to whom. An id out of range throws
  // InvalidArgument on the CPU engine. The CUDA engine, whose host does not wait for the result, counts it as not
  // used. `cuda_stream`: as in DispatchArgs.
  [[nodiscard]] Layout get_layout(ConstTensorView topk_idx, std::uintptr_t cuda_stream = 0) const;
  // On the CPU engine the layout is complete when this returns.
  [[nodiscard]] Pending<Layout> get_layout_async(ConstTensorView topk_idx, std::uintptr_t cuda_stream = 0) const;

  Dispatched dispatch(ConstTensorView x, ConstTensorView topk_idx, ConstTensorView topk_weights = {});
  Dispatched dispatch(DispatchArgs const& args);
  Pending<Dispatched> dispatch_async(DispatchArgs const& args);

  Tensor combine(ConstTensorView x, Handle const& handle);
  Combined combine(CombineArgs const& args);
  Pending<Combined> combine_async(CombineArgs const& args);

  // Not collective. A tensor of the heap: combine reads without a copy what experts write here. Throws OutOfMemory
  // on this rank only.
  [[nodiscard]] Tensor allocate(DType dtype, std::initializer_list<std::int64_t> shape);

  // Not collective. Adds the rows of each local expert that a dispatch received, without the rounding, to `to` [L],
  // i32 or i64: numbers that a program counts over many dispatches. CUDA engine: on `cuda_stream`, behind which the
  // dispatch must be. Returns false, and does nothing, after a dispatch that ran in rounds on the CUDA engine,
  // whose counts only the handle has.
  bool add_received(Handle const& handle, TensorView to, std::uintptr_t cuda_stream = 0);
  // Not collective. A copy of scales [n, G] of 4 bytes each, f32 or i32, with the strides {1, n rounded up to 4}:
  // what the copy engines of GPUs take. CUDA engine: on `cuda_stream`, behind which a dispatch must be. Returns an
  // empty tensor, and does nothing, where the heap has no room at once.
  [[nodiscard]] Tensor by_column(ConstTensorView scales, std::uintptr_t cuda_stream = 0);
  // Not collective. A copy of a tensor [n, m] in the heap, for after a call that was given it. CUDA engine: on
  // `cuda_stream`, that of the latest call. Returns an empty tensor, and does nothing, for one with gaps, where the
  // heap has no room at once, and where `cuda_stream` does not come behind all that may still read free parts of
  // the heap: after an asynchronous call, when earlier calls named other streams.
  [[nodiscard]] Tensor copy(ConstTensorView source, std::uintptr_t cuda_stream = 0);

  // Not collective. Waits until all calls so far are complete, and throws what they found. The CUDA engine's calls
  // return before their rows have moved; what goes wrong later is thrown here, by the next call, or by waiting for
  // an event.
  void synchronize();

  // Brings the buffer back into use after a Timeout, when all ranks are alive again; harmless when nothing has
  // failed. It waits for queued work, whose errors its events and Pending still throw, and then for all ranks, as
  // long as the communicator's timeout says. What was handed out before stays valid, but a handle of a dispatch
  // that failed is refused. On the CUDA engine, replays of graphs must be over. When reset() throws, the buffer
  // stays unusable; after PeerLost, and after Timeout (which names the rank that did not come), so do the
  // communicator's collectives.
  void reset();

  // CPU engine: the stream that asynchronous calls run on. Throws Unsupported on the CUDA engine.
  [[nodiscard]] Stream& stream();
  // CUDA engine: the cudaStream_t that calls run on; 0 on the CPU engine.
  [[nodiscard]] std::uintptr_t cuda_stream() const noexcept;
  [[nodiscard]] EngineKind engine() const noexcept;  // cpu or cuda
  [[nodiscard]] Communicator const& communicator() const noexcept;
  // As they were passed; on the CUDA engine with the device that was chosen.
  [[nodiscard]] BufferOptions const& options() const noexcept;
  // Bytes of the heap that are in use, and the most that ever were.
  // Bytes of this rank's heap: in use, the most that were, and what it has (CPU engine: addresses for).
  [[nodiscard]] std::size_t heap_bytes_used() const noexcept;
  [[nodiscard]] std::size_t heap_bytes_peak() const noexcept;
  [[nodiscard]] std::size_t heap_bytes_now() const noexcept;
  // Gives memory of this rank's heap that nothing lies in back to the machine; a call that needs it takes it again.
  // CUDA engine: what the heap grew by, from its end on. It waits for earlier calls, whose blocks are free then;
  // work that reads released results must be complete (for what a framework has noted by record_stream() it waits,
  // too). Returns by how many bytes the heap became smaller. Not collective. Any thread may call it; beside a call
  // of another thread it gives nothing back.
  std::size_t trim();

  [[nodiscard]] std::shared_ptr<detail::ThroughputEngine> const& state() const noexcept { return state_; }

 private:
  std::shared_ptr<detail::ThroughputEngine> state_;
};

}  // namespace switchyard
