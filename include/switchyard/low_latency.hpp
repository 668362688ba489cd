// Dispatch and combine in low-latency mode: for decoding, with few tokens a rank. No counts are exchanged first;
// rows go into fixed slots of the receiver, of which there are as many as the most tokens that a rank may send.
//
// In shapes: N tokens of this rank, M max_tokens, H hidden, K top_k, E experts, R ranks, L experts of this rank,
// G = ceil(H/128) scale groups, F max_results. Experts are split over ranks as in buffer.hpp. docs/low-latency.md
// has the protocol.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "switchyard/buffer.hpp"
#include "switchyard/communicator.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard {

namespace detail {
class LowLatencyEngine;
struct Lease;
}  // namespace detail

// All ranks must pass equal sizes and the same engine; the constructor checks that.
struct LowLatencyOptions {
  std::int64_t max_tokens = 0;  // M: most tokens that any rank dispatches in one call
  std::int64_t hidden = 0;      // H
  int num_experts = 0;          // E
  int top_k = 0;                // K: 1 to 64
  // F, 1 to 16: results that there is memory for from the beginning, and dispatches that can be combined at a time.
  int max_results = 2;
  // Most bytes of a token's row, and of its scales, as they travel in a dispatch; 0: those of bf16 (2 * H), and of
  // f32 scales (4 * G). Rows of an f32 x that is not cast need 4 * H, opaque payloads as many as they have.
  std::int64_t max_row_bytes = 0;
  std::int64_t max_scale_bytes = 0;
  // Deadline of every wait for a peer; 0: SWITCHYARD_TIMEOUT_MS.
  std::chrono::milliseconds timeout{0};
  // What happens when a peer ends or misses a deadline. false: the call throws, as in Buffer. true: the peer is
  // masked, and only its tokens are lost; the constructor does so, too, and other collectives of the communicator
  // then throw PeerLost. In a job of several nodes the constructor throws, and a rank that is lost also costs the
  // tokens that go through it; see docs/low-latency.md, "Between nodes".
  bool mask_late_peers = false;
  EngineKind engine = EngineKind::automatic;
  int num_workers = 0;  // CPU engine, as in BufferOptions
  int device = -1;      // CUDA engine, as in BufferOptions
  int num_sms = 0;      // CUDA engine: SMs that a call takes; 0: the GPU's divided by the ranks that share it
};

enum class SlotLayout : std::uint8_t {
  expert_major,  // a row for each (token, slot of its top-k), grouped by expert: what a masked grouped GEMM takes
  rank_major,    // a row for each (token, rank), grouped by source rank: moves fewer bytes
};

// What happens to the rows of a bf16, f16 or f32 x on their way.
enum class SendCast : std::uint8_t {
  none,
  fp8,        // e4m3, with an f32 scale for each token and 128 channels: amax / 448
  fp8_pow2,   // the same, with scales rounded up to powers of two
  fp8_ue8m0,  // the same powers of two as exponents (8 bits, bias 127), four in an i32, the first in its low byte
};

// Holds the slots of one dispatch, together with its tensors: as long as any of them lives, no rank overwrites the
// slots.
class LowLatencyHandle {
 public:
  LowLatencyHandle() = default;
  explicit LowLatencyHandle(std::shared_ptr<detail::Lease> lease) : lease_(std::move(lease)) {}
  [[nodiscard]] bool given() const noexcept { return lease_ != nullptr; }
  [[nodiscard]] std::shared_ptr<detail::Lease> const& lease() const noexcept { return lease_; }

 private:
  std::shared_ptr<detail::Lease> lease_;
};

struct LowLatencyDispatchArgs {
  // [N, H] bf16, f16 or f32 (without a cast, where max_row_bytes has room); or f8e4m3 with scales; or [N, B] u8, an
  // opaque payload of B bytes for each token. Rows may be strided; the elements of a row must be adjacent.
  ConstTensorView x{};
  // f8e4m3: [N, G] f32, any strides. u8: [N, S] u8 with adjacent bytes in a row, or not given.
  ConstTensorView scales{};
  // [N, K] i64 or i32; -1: the slot is not used. CPU engine: an id out of range throws InvalidArgument before
  // anything is sent. CUDA engine, whose host does not wait for ids: it counts as not used, and a later call
  // throws. expert_major: an id that repeats within a token is a row each; a rank may send M rows to an expert, and
  // slots beyond that are treated as those of ids out of range.
  ConstTensorView topk_idx{};
  // rank_major only: [N, K] f32, which travel along.
  ConstTensorView topk_weights{};
  SendCast cast = SendCast::none;
  SlotLayout layout = SlotLayout::expert_major;
  // The receive half adds to these. [L] i32: rows received for each expert; rank_major: a row counts once for an
  // expert that it has in several slots. [R] i64: nanoseconds from the beginning of the half until the rows of a
  // source were there.
  TensorView received_per_expert{};
  TensorView wait_ns_per_source{};
  // i32, [L] (expert_major) or [R] (rank_major): the receive half writes the result's counts here, too, for a
  // caller who keeps them longer than the slots.
  TensorView counts{};
  int num_workers = 0;  // CPU engine; 0: as in the buffer's options
  int num_sms = 0;      // CUDA engine; 0: as in the buffer's options
  // CUDA engine: the cudaStream_t that the call runs on; 0: the default stream.
  std::uintptr_t cuda_stream = 0;
};

// Contents are valid after the receive half. Rows that no range (expert_major) or count (rank_major) covers are
// undefined.
struct LowLatencyReceived {
  // expert_major: [L, R*M, H or B]; rank_major: [R, M, H or B]. In the dtype of the input, or f8e4m3 after a cast.
  Tensor x;
  // With f8e4m3: f32 [.., G], or after fp8_ue8m0 i32 [.., ceil(G/4)]. With u8: u8 [.., S]. The leading dimensions
  // are those of x. expert_major: the last two dimensions of f32 and i32 scales are column-major (strides 1, R*M);
  // all other scales are contiguous.
  Tensor scales;
  // expert_major: [L] i32, rows of each expert: the first counts[l] of its R*M are taken. rank_major: [R] i32, rows
  // of each source.
  Tensor counts;
  // expert_major: [L, R] i64, begin << 32 | count: where in the expert's rows those of a source lie, in the order
  // of its tokens and their slots. The order of the sources is not defined.
  Tensor ranges;
  // [L, R*M] or [R, M] i32: index of the token on its source rank.
  Tensor source_token;
  // rank_major: [R, M, K] i32 local expert ids, -1 where the expert is not ours.
  Tensor topk_idx;
  // rank_major, when weights were passed: [R, M, K] f32, 0 where the expert is not ours.
  Tensor topk_weights;
  LowLatencyHandle handle;
};

enum class CombineCoding : std::uint8_t {
  none,
  logfmt10,  // 10 bits a value, a range for each 128 channels: for slow links; see docs/low-latency.md
};

struct LowLatencyCombineArgs {
  // bf16 or f16, contiguous, in the slots of the dispatch. expert_major: [L, R*M, H]. rank_major: [R, M, H], the
  // sum of what this rank's experts make of a token. Read in place when it is the tensor of outputs(), copied there
  // otherwise.
  ConstTensorView x{};
  LowLatencyHandle handle{};
  // expert_major: [N, K] f32, the weight of each slot of a token; not given: 1.
  ConstTensorView topk_weights{};
  // A coded combine writes its codes into the tensor of outputs(), so x must be another one.
  CombineCoding coding = CombineCoding::none;
  // [N, H] in the dtype of x, rows may be strided. Sums are taken in f32, in slot order (expert_major) or by rank
  // (rank_major). A slot whose rank is masked adds nothing. Over nodes the sum is a tree: within each node in that
  // order, then the nodes in theirs, where sums of other nodes have been rounded to the dtype of x, and coded if
  // the combine is.
  TensorView out{};
  TensorView wait_ns_per_source{};  // [R] i64, as in a dispatch
  int num_workers = 0;
  int num_sms = 0;
  std::uintptr_t cuda_stream = 0;
};

// The receive half of a call, which waits for what the peers send; over nodes also for the receive halves of its
// rail neighbours. To be called once (later calls do nothing), before this buffer's next call of the same kind; on
// the CUDA engine with the stream that it is to run on. Between the halves nothing runs.
using ReceiveHook = std::function<void(std::uintptr_t cuda_stream)>;

// Calls are collective unless they say otherwise: all ranks that are not masked make the same calls in the same
// order, with equal options but any number of tokens. One thread at a time makes calls. Inputs must stay valid and
// unchanged until the receive half is complete (CUDA engine: in stream order).
//
// Errors: a wrong argument throws InvalidArgument on the rank that passed it, before anything is sent; its peers
// wait for the corrected call. When ranks ask for different things, the receivers throw InvalidArgument and the
// buffer has failed. After PeerLost and Timeout (unless late peers are masked) and SystemError it has failed on all
// ranks, too. reset() brings a failed buffer back into use.
class LowLatencyBuffer {
 public:
  LowLatencyBuffer(Communicator const& communicator, LowLatencyOptions const& options);

  // Both halves in one. If the result of F dispatches ago is still held, it stays as it is, and the buffer takes
  // memory for one more. Throws InvalidArgument when there is none, when that result is part of a CUDA graph or its
  // memory is, and when a receive half of it, or of its combines, was not called.
  LowLatencyReceived dispatch(LowLatencyDispatchArgs const& args);
  // The send half; sets `receive` to the other. In a CUDA graph the result is that of the latest replay, and lasts
  // until the next replay of any graph of this buffer. Replays must come in the order of the calls around them: on
  // the same stream, or ordered by events.
  LowLatencyReceived send_dispatch(LowLatencyDispatchArgs const& args, ReceiveHook& receive);

  // A dispatch may be combined several times, one after another, as long as its result or its handle is held and it
  // is one of the latest F dispatches: all ranks do so equally often. Each combine after the first costs one more
  // exchange of flags.
  void combine(LowLatencyCombineArgs const& args);
  void send_combine(LowLatencyCombineArgs const& args, ReceiveHook& receive);

  // Not collective. Where experts may write what a combine then reads without a copy: [L, R*M, H] or [R, M, H] bf16
  // or f16. To be written after the receive half of the dispatch, and not any more once a combine was sent: peers
  // may read it.
  [[nodiscard]] Tensor outputs(LowLatencyHandle const& handle, DType dtype);

  // Not collective. Nothing is sent to a masked rank, and nothing is awaited from it. A rank that a peer has masked
  // masks that peer in turn.
  void mask(int rank, bool masked = true);
  // Not collective. [R]: which ranks are masked.
  [[nodiscard]] std::vector<bool> masked();
  // To be called with all ranks alive and no call under way: nobody is masked any more, and a failure is forgotten.
  // Results from before are void.
  void reset();

  // Not collective. CUDA engine: waits for all calls so far and throws what they found.
  void synchronize();

  [[nodiscard]] EngineKind engine() const noexcept;
  [[nodiscard]] Communicator const& communicator() const noexcept;
  // As they were passed; on the CUDA engine with the device that was chosen.
  [[nodiscard]] LowLatencyOptions const& options() const noexcept;
  [[nodiscard]] std::int64_t num_local_experts() const noexcept;  // L
  [[nodiscard]] std::size_t bytes() const noexcept;               // size of this rank's slots

  [[nodiscard]] std::shared_ptr<detail::LowLatencyEngine> const& state() const noexcept { return state_; }

 private:
  std::shared_ptr<detail::LowLatencyEngine> state_;
};

}  // namespace switchyard
