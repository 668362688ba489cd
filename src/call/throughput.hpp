// What a throughput call is, whichever engine runs it: how it is checked, described to the peers, and shaped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/refusal.hpp"
#include "control/announce.hpp"
#include "layout/receive_block.hpp"
#include "layout/routing.hpp"
#include "memory/symmetric_heap.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

// What checking a call needs to know of its buffer.
struct BufferInfo {
  BufferOptions options;
  int num_ranks = 1;
  std::uint64_t buffer_id = 0;  // a handle carries the id of the buffer that made it
  Device device = Device::cpu;  // where the tensors of a call must lie
  int rank = 0;
};

// These check what the caller passed, before anything moves. They throw InvalidArgument, which names the argument,
// what was expected and what was seen. They do not read ids, nor anything else that lies in a tensor.
void check_topk_idx(ConstTensorView const& topk_idx, BufferInfo const& buffer);
void check_dispatch(DispatchArgs const& args, BufferInfo const& buffer);
void check_combine(CombineArgs const& args, BufferInfo const& buffer);

// What a buffer hands to its engine for one dispatch. A call with a refusal runs only as far as its peers need to
// learn of it.
struct DispatchCall {
  DispatchArgs args;
  std::optional<Refusal> refusal{};  // wrong arguments, or no room for the result
  // In a cached dispatch `fresh` is null and `routing` is complete. Otherwise both are the same object, whose
  // sending side is filled in while its rows are not final yet.
  std::shared_ptr<detail::Routing> fresh{};
  std::shared_ptr<detail::Routing const> routing{};
  ReceiveShape shape{};                               // its rows are those of the worst case, or not known yet
  std::optional<SymmetricHeap::Block> description{};  // the end of the block, once that is divided (divide_block)
  std::optional<SymmetricHeap::Block> block{};  // where the result goes; in worst-case mode it is given beforehand
  int workers = 1;                              // threads of the CPU engine, SMs of the CUDA engine
  // CUDA engine: takes memory of the GPU outside of the heap, for what no peer reads. Throws OutOfMemory.
  std::function<std::shared_ptr<std::byte>(std::size_t bytes)> outside{};
  // Hosted calls: what to do when all rows have their places, before they move.
  std::function<void()> when_placed{};
  // CUDA engine, in a call that is one of several rounds: the number of its first token in the whole dispatch,
  // which round it is (0: there are none), and where its rows must fit.
  std::int64_t first_token = 0;
  std::int64_t range = 0;
  std::optional<detail::RoundRoom> room{};
  bool waits = true;  // CUDA engine, in a cached dispatch: see BufferOptions::errors_at_once
  Tensor ids{};       // CUDA engine: see Dispatched::ids
};

// Blocks of a combine's inputs that peers cannot read where they lie: x, topk_weights, row_weights.
struct Staging {
  bool taken = false;  // what is needed has been taken
  std::optional<SymmetricHeap::Block> x{};
  std::optional<SymmetricHeap::Block> topk_weights{};
  std::optional<SymmetricHeap::Block> row_weights{};
};

struct CombineCall {
  CombineArgs args;
  std::optional<Refusal> refusal{};
  TensorView out{};          // [N, H]
  TensorView out_weights{};  // [N, K] f32, or not given; a round writes its part of the whole call's
  int workers = 1;
  bool waits = true;  // CUDA engine: see BufferOptions::errors_at_once
  Staging staging{};  // of hosted calls
};

// K of the weights that a combine returns, if it was given some.
std::int64_t returned_slots(CombineArgs const& args);

// Runs `step`. What it throws becomes the refusal of the call, unless it has one already: all ranks will throw it.
template <typename Call, typename Step>
void attempt(Call& call, Step const& step) {
  if (!call.refusal) call.refusal = refusal_of(step);
}

// What all ranks must ask alike.
CallTerms terms_of(DispatchCall const& call);
CallTerms terms_of(CombineCall const& call);
// For engines whose peers compare one number. Equal terms have equal digests, which are never 0.
std::uint64_t digest_of(CallTerms const& terms);

// The shape of a dispatch's result, as far as its arguments say: without num_worst_tokens it has no rows yet.
ReceiveShape shape_of(DispatchArgs const& args, OutputLayout layout, std::int64_t top_k);

// Fills in the sending side of a dispatch's routing, without the routes.
void describe(DispatchArgs const& args, BufferInfo const& buffer, int rank, detail::Routing& routing);

// Rows are large, and a handle or a caller keeps what describes them longer: from here on that has an owner of its
// own, which the rows' tensors share.
void divide_block(SymmetricHeap& heap, DispatchCall& call);
// Makes the tensors of a dispatch's result. They lie in the call's block, and own it together.
void fill_tensors(DispatchCall const& call, Device device, Dispatched& result);

// Check what Buffer::add_received, Buffer::by_column and Buffer::copy are given.
void check_received(Handle const& handle, TensorView const& to, BufferInfo const& buffer);
void check_by_column(ConstTensorView const& scales, BufferInfo const& buffer);
void check_source(ConstTensorView const& source, BufferInfo const& buffer);
// The memory of a copy by columns, of one without gaps, and of one without gaps of what has none; empty where the
// heap has no room at once. The caller can copy elsewhere, and should not wait.
Tensor room_by_column(SymmetricHeap& heap, ConstTensorView const& scales, Device device);
Tensor room_for_dense(SymmetricHeap& heap, ConstTensorView const& source, Device device);
Tensor room_for_copy(SymmetricHeap& heap, ConstTensorView const& source, Device device);

// Says where a combine's results go: into the caller's tensor, or into new ones. Throws OutOfMemory.
void prepare_outputs(CombineCall& call, SymmetricHeap& heap, BufferInfo const& buffer, Combined& result);

}  // namespace switchyard
