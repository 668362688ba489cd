// What api hands to an engine for one call, and what of it all ranks must have alike.
#pragma once

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

// `refusal`: the arguments were found wrong, or the block could not be had; the call then only tells the peers.
// `fresh` is null in a cached dispatch, whose routing is complete; otherwise it is `routing`, with the sending side
// filled in and its rows not yet final.
struct DispatchCall {
  DispatchArgs args;
  std::optional<Refusal> refusal{};
  std::shared_ptr<detail::Routing> fresh{};
  std::shared_ptr<detail::Routing const> routing{};
  ReceiveShape shape{};                         // rows: of the worst case, or unknown yet
  std::optional<SymmetricHeap::Block> block{};  // given beforehand in worst-case mode
  int workers = 1;                              // of the CPU engine; SMs of the CUDA engine
  // CUDA engine: memory of the GPU outside of the heap, for what no peer reads. Throws OutOfMemory.
  std::function<std::shared_ptr<std::byte>(std::size_t bytes)> outside{};
  // CUDA engine, of a round: what the numbers of its tokens begin with, which of the rounds it is (0: all tokens at
  // once), and where its rows must fit.
  std::int64_t first_token = 0;
  std::int64_t range = 0;
  std::optional<detail::RoundRoom> room{};
};

struct CombineCall {
  CombineArgs args;
  std::optional<Refusal> refusal{};
  TensorView out{};          // [N, H]
  TensorView out_weights{};  // [N, K] f32, or not given; a round's are part of the whole call's
  int workers = 1;
};

Facts facts_of(DispatchCall const& call);
Facts facts_of(CombineCall const& call);
// For engines whose peers compare numbers only: equal facts have equal digests. Never 0.
std::uint64_t digest_of(Facts const& facts);

}  // namespace switchyard
