// Dispatch and combine in low-latency mode: for decoding, with few tokens a rank. There is no round for counts;
// rows go into fixed slots of the receiver, sized by the most tokens that a rank may send.
//
// N tokens of this rank, M max_tokens, H hidden, K top_k, E experts, R ranks, L experts of this rank, G =
// ceil(H/128) scale groups, F max_results. Experts are split over ranks as in buffer.hpp. docs/low-latency.md has
// the protocol.
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

// Sizes must be equal on all ranks; construction checks that.
struct LowLatencyOptions {
  std::int64_t max_tokens = 0;  // M: most tokens that any rank dispatches in one call
  std::int64_t hidden = 0;      // H
  int num_experts = 0;
  int top_k = 0;        // 1 to 64
  int max_results = 2;  // F: results that a rank may hold at once, 1 to 16; memory grows with it
  // Most bytes of a token's row, and of its scales, as they travel in a dispatch; 0: those of bf16 (2 * H), and of
  // f32 scales. Rows of an f32 x that is not cast need 4 * H; opaque payloads what they have.
  std::int64_t max_row_bytes = 0;
  std::int64_t max_scale_bytes = 0;
  // Deadline of every wait for a peer; 0 takes SWITCHYARD_TIMEOUT_MS.
  std::chrono::milliseconds timeout{0};
  // What a peer that ends or misses a deadline does: false: the call throws, as in Buffer; true: the peer is
  // masked, and only its tokens are lost.
  bool mask_late_peers = false;
  EngineKind engine = EngineKind::automatic;
  int num_workers = 0;  // CPU engine, as in BufferOptions
  int device = -1;      // CUDA engine, as in BufferOptions
  int num_sms = 0;      // CUDA engine: SMs that a call takes; 0: the GPU's divided by the ranks that share it
};

enum class SlotLayout : std::uint8_t {
  expert_major,  // a row per (token, local expert), grouped by expert: what a masked grouped GEMM takes
  rank_major,    // a row per (token, rank), grouped by source: moves fewer bytes
};

// What happens to the rows of a bf16, f16 or f32 x on their way.
enum class SendCast : std::uint8_t {
  none,
  fp8,        // e4m3, a f32 scale per token and 128 channels: amax / 448
  fp8_pow2,   // the same, scales rounded up to powers of two
  fp8_ue8m0,  // the same powers of two, as exponents (8 bits, bias 127), four to an i32, the first in its low byte
};

// Holds the slots of one dispatch, together with its tensors: as long as any of them lives, no rank overwrites
// them.
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
  // [N, H] bf16, f16 or f32 (without a cast: where max_row_bytes has room); or f8e4m3 with scales; or [N, B] u8: an
  // opaque payload of B bytes a token. Rows may be strided, elements of a row must be adjacent.
  ConstTensorView x{};
  // f8e4m3: [N, G] f32. u8: [N, S] u8 or not given. Any strides for f32; for u8 the bytes of a row must be
  // adjacent.
  ConstTensorView scales{};
  // [N, K] i64 or i32; -1: slot not used. CPU engine: an id out of range throws InvalidArgument before anything is
  // sent. CUDA engine, whose host does not wait for ids: it counts as not used, and a later call throws.
  ConstTensorView topk_idx{};
  // rank_major only: [N, K] f32, travels along.
  ConstTensorView topk_weights{};
  SendCast cast = SendCast::none;
  SlotLayout layout = SlotLayout::expert_major;
  // Added to by the receive half. [L] i32: the rows received for each expert; a row counts once for an expert that
  // it has in several slots. [R] i64: the nanoseconds from the beginning of the half until the source was there.
  TensorView received_per_expert{};
  TensorView wait_ns_per_source{};
  int num_workers = 0;  // 0: as the buffer was made; CPU engine
  int num_sms = 0;      // likewise; CUDA engine
  // CUDA engine: the cudaStream_t that the call runs on; 0: the default stream.
  std::uintptr_t cuda_stream = 0;
};

// Contents are valid after the receive half. Rows that no range (expert_major) or count (rank_major) covers are
// undefined.
struct LowLatencyReceived {
  // expert_major: [L, R*M, H or B]; rank_major: [R, M, H or B]. dtype of the input, f8e4m3 after a cast.
  Tensor x;
  // f32 (f8e4m3): [.., G]. After fp8_ue8m0: i32 [.., ceil(G/4)]. u8: [.., S]. expert_major: the last two dimensions
  // of f32 and i32 scales are column-major (strides 1, R*M); all others are contiguous.
  Tensor scales;
  // expert_major: [L] i32, rows of each expert: the first counts[l] of its R*M are taken. rank_major: [R] i32, rows
  // of each source.
  Tensor counts;
  // expert_major: [L, R] i64, begin << 32 | count: where in the expert's rows those of a source lie, in the order
  // of its tokens (one row for a token that has the expert in several slots). Which source comes first is open.
  Tensor ranges;
  // [L, R*M] or [R, M] i32: index of the token on its source rank.
  Tensor source_token;
  // rank_major: [R, M, K] i32: local expert ids, -1 where not ours; and f32, as given, 0 where not ours.
  Tensor topk_idx;
  Tensor topk_weights;
  LowLatencyHandle handle;
};

enum class CombineCoding : std::uint8_t {
  none,
  logfmt10,  // 10 bits a value, a range per 128 channels: for slow links; docs/low-latency.md
};

struct LowLatencyCombineArgs {
  // bf16 or f16, in the slots of the dispatch: expert_major [L, R*M, H]; rank_major [R, M, H], what this rank's
  // experts make of a token in all. Contiguous. Read in place when it is what outputs() gave, copied first
  // otherwise.
  ConstTensorView x{};
  LowLatencyHandle handle{};
  // expert_major: [N, K] f32: slot k of a token counts with weight k; not given: 1.
  ConstTensorView topk_weights{};
  // Codes go where outputs() points, so a coded combine takes x from elsewhere.
  CombineCoding coding = CombineCoding::none;
  // [N, H], dtype of x, rows may be strided: the sums, in f32, in slot order (expert_major) or by rank
  // (rank_major). A slot whose rank is masked adds nothing.
  TensorView out{};
  TensorView wait_ns_per_source{};  // [R] i64, as in a dispatch
  int num_workers = 0;
  int num_sms = 0;
  std::uintptr_t cuda_stream = 0;
};

// The second half of a call: waits for what the peers send. To be called once (later calls do nothing), with the
// stream that it is to run on (CUDA engine) and before this buffer's next call of the same kind. Between the halves
// nothing runs.
using ReceiveHook = std::function<void(std::uintptr_t cuda_stream)>;

// All calls are collective, in the same order on all ranks that are not masked, with equal options but any number
// of tokens. One thread at a time. Inputs must stay valid until the receive half is done (CUDA: in stream order).
// Errors: InvalidArgument on the rank that made the mistake, before anything is sent (its peers wait for the
// corrected call); when ranks differ in what they ask for: InvalidArgument at the receivers, and the buffer has
// failed. PeerLost and Timeout (unless late peers are masked): the buffer has failed on all ranks. A failed buffer
// comes back into use by reset().
class LowLatencyBuffer {
 public:
  LowLatencyBuffer(Communicator const& communicator, LowLatencyOptions const& options);

  // Both halves. Throws InvalidArgument when all F results are still held.
  LowLatencyReceived dispatch(LowLatencyDispatchArgs const& args);
  // CUDA graphs: a captured result is that of the latest replay, and lasts until the next replay of any graph of
  // this buffer. Replays must come in the order of the calls around them: on the same stream, or joined by events.
  LowLatencyReceived send_dispatch(LowLatencyDispatchArgs const& args, ReceiveHook& receive);

  void combine(LowLatencyCombineArgs const& args);
  void send_combine(LowLatencyCombineArgs const& args, ReceiveHook& receive);

  // Where experts may write what a combine then reads without a copy: [L, R*M, H] or [R, M, H] bf16 or f16. To be
  // written after the receive half of the dispatch.
  [[nodiscard]] Tensor outputs(LowLatencyHandle const& handle, DType dtype);

  // Nothing is sent to a masked rank, and nothing awaited from it. A rank that is masked by a peer masks that peer.
  void mask(int rank, bool masked = true);
  [[nodiscard]] std::vector<bool> masked();
  // Collective, with all ranks alive and no call under way: nobody is masked any more, and a failure is forgotten.
  // Results from before are void.
  void reset();

  // CUDA engine: waits for all calls so far and throws what they found.
  void synchronize();

  [[nodiscard]] EngineKind engine() const noexcept;
  [[nodiscard]] Communicator const& communicator() const noexcept;
  [[nodiscard]] LowLatencyOptions const& options() const noexcept;  // CUDA engine: with the device that was chosen
  [[nodiscard]] std::int64_t num_local_experts() const noexcept;    // L
  [[nodiscard]] std::size_t bytes() const noexcept;                 // of this rank's slots

  [[nodiscard]] std::shared_ptr<detail::LowLatencyEngine> const& state() const noexcept { return state_; }

 private:
  std::shared_ptr<detail::LowLatencyEngine> state_;
};

}  // namespace switchyard
