// Calls in rounds, on the CUDA engine: when the result of a dispatch does not fit into the heap, ranges of the
// tokens are dispatched one after the other. Each round's rows land in the heap and move on to memory outside of
// it. A combine brings them back the same way.
#pragma once

#include <functional>
#include <memory>

#include "call/throughput.hpp"
#include "engine/cuda/throughput/engine.hpp"
#include "memory/device/device_pool.hpp"

namespace switchyard::detail {

// What a round is, beside its arguments.
struct RoundFacts {
  std::int64_t first_token = 0;
  std::int64_t range = 0;            // 2^depth + number; the same on all ranks
  std::optional<RoundRoom> room{};   // where a dispatch's rows must fit
  TensorView out_weights{};          // where a combine writes the sums of weights, if it has any
  std::optional<Refusal> refusal{};  // found before the call; the peers learn of it
};

// What rounds are made of. All of it outlives them.
struct RoundTools {
  cuda::Engine& engine;
  SymmetricHeap& heap;
  BufferOptions const& options;
  std::function<std::shared_ptr<DevicePool>()> pool;
  std::function<RoundRoom(std::size_t useful)> room;  // see RoundRooms; when no call is under way
  std::function<Dispatched(DispatchArgs const&, RoundFacts const&)> dispatch;
  std::function<Combined(CombineArgs const&, RoundFacts const&)> combine;
  std::function<std::shared_ptr<void>()> keep;  // what results must keep alive
};

// `counted`: of the call that did not fit; its counts are known. Throws OutOfMemory on every rank when a round of a
// single token does not fit either, or when there is no memory for the whole result outside of the heap.
Dispatched dispatch_in_rounds(RoundTools const& tools, DispatchArgs const& args, std::shared_ptr<Routing> counted);
// Along the rounds of an earlier dispatch. `refusal`: found before the first round, here and below.
Dispatched dispatch_in_same_rounds(RoundTools const& tools, DispatchArgs const& args,
                                   std::optional<Refusal> refusal);
Combined combine_in_rounds(RoundTools const& tools, CombineArgs const& args, std::optional<Refusal> refusal);

}  // namespace switchyard::detail
