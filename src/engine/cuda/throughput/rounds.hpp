// Calls in rounds, on the CUDA engine: when the result of a dispatch does not fit into the heap, ranges of the
// tokens are dispatched one after the other. Each round's rows land in the heap and move on to memory outside of
// it. A combine brings them back the same way.
#pragma once

#include <memory>

#include "call/throughput.hpp"
#include "engine/cuda/throughput/engine.hpp"
#include "memory/round_room.hpp"

namespace switchyard::detail {

// What a round is, beside its arguments.
struct RoundTerms {
  bool is_round = false;  // then the host waits for all ranks: a round that one refuses ends the rounds of all
  std::int64_t first_token = 0;
  std::int64_t range = 0;            // 2^depth + number; the same on all ranks
  std::optional<RoundRoom> room{};   // where a dispatch's rows must fit
  TensorView out_weights{};          // where a combine writes the sums of weights, if it has any
  std::optional<Refusal> refusal{};  // found before the call; the peers learn of it
};

// What rounds ask of the buffer that they are made of. It outlives them.
class RoundMaker {
 public:
  // One call of the engine. Throw what the same call of a user throws, on every rank alike.
  virtual Dispatched dispatch_round(DispatchArgs const& args, RoundTerms const& terms) = 0;
  virtual Combined combine_round(CombineArgs const& args, RoundTerms const& terms) = 0;

  // Memory outside of the heap, which keeps the buffer alive. Throws OutOfMemory.
  virtual std::shared_ptr<std::byte> outside_of_heap(std::size_t bytes) = 0;

  // See RoundRooms. Only when no call is under way. Throws OutOfMemory.
  virtual RoundRoom take_room(std::size_t useful) = 0;

 protected:
  ~RoundMaker() = default;
};

struct RoundTools {
  RoundMaker& maker;
  cuda::Engine& engine;
  SymmetricHeap& heap;
  BufferOptions const& options;
};

// `counted`: of the call that did not fit; its counts are known. Throws OutOfMemory on every rank when a round of a
// single token does not fit either, or when there is no memory for the whole result outside of the heap.
Dispatched dispatch_in_rounds(RoundTools const& tools, DispatchArgs const& args, std::shared_ptr<Routing> counted);
// Along the rounds of an earlier dispatch. `refusal`: found before the first round, here and below.
Dispatched dispatch_in_same_rounds(RoundTools const& tools, DispatchArgs const& args,
                                   std::optional<Refusal> refusal);
Combined combine_in_rounds(RoundTools const& tools, CombineArgs const& args, std::optional<Refusal> refusal);

}  // namespace switchyard::detail
