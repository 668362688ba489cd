// What a host and its own GPU publish to each other, in pinned host memory that the GPU maps. Each rank has one for
// each of its buffers.
#pragma once

#include <cstdint>

#include "layout/control.hpp"
#include "layout/device_control.hpp"
#include "layout/topology.hpp"

namespace switchyard::cuda {

// Where a kernel was when a wait failed. trouble.cpp has the names that errors use.
enum class WaitPoint : std::uint32_t {
  none,
  announce,
  answer,
  arrive,
  combine_announce,
  stage,
  combine_close,
  gate,
  // Of the low-latency mode.
  slots_credit,
  slots_claim,
  slots_arrive,
  slots_ready,
  slots_read,
};

enum class TroubleKind : std::uint32_t {
  none,
  timeout,
  peer_lost,
  aborted,      // another rank reported a failure through the host's control block
  broken,       // a peer's answer points outside of its heap
  mismatch,     // a peer makes another call, or refuses
  corrupt,      // a count is out of range
  too_few_rows  // more rows arrive than num_worst_tokens allows
};

struct Trouble {
  std::uint32_t state;  // 0: none; 1: the other fields can be read
  TroubleKind kind;
  WaitPoint point;
  std::int32_t peer;
  std::uint64_t expected;
  std::uint64_t seen;
  std::uint64_t call = 0;  // see Waiting
};

// Where an id stands in topk_idx, also as one number. A token has at most 64 slots.
struct IdPlace {
  std::int64_t token;
  std::int64_t slot;

  static constexpr std::int64_t most_slots = 64;
  [[nodiscard]] static constexpr IdPlace of(std::int64_t number) noexcept {
    return {number / most_slots, number % most_slots};
  }
  [[nodiscard]] constexpr std::int64_t number() const noexcept { return token * most_slots + slot; }
};

struct Mailbox {
  // The host writes these for its GPU.
  alignas(cache_line) LocalRankMask lost;  // a bit for each rank that has ended or left
  std::uint32_t aborted;                   // 1: waits must end

  // The GPU writes all of the following for its host. The first trouble is written once, its state last (release).
  alignas(cache_line) Trouble trouble;
  // Low-latency mode: the IdPlace of an id that is out of range, plus 1; 0: none since the host looked.
  alignas(cache_line) std::uint64_t bad_slot;
  // The call with this ticket has its counts (a dispatch) or all announces (a combine), or it has failed. The word
  // is ticket * 2, plus 1 when a trouble was reported, whose words may become visible later. It is written after
  // the words below (release).
  alignas(cache_line) std::uint64_t ticket;
  // The dispatch with this ticket knows where all its rows go; made like `ticket`. Where answers_are_certain it may
  // stay behind.
  std::uint64_t answered;
  std::int64_t rows;                  // received, without those that only fill num_worst_tokens
  std::int64_t bad_id;                // IdPlace of the first id that is out of range; -1: none
  std::uint64_t answers_are_certain;  // 1: no peer can refuse any more
  std::int64_t recv_rows_end[max_node_ranks];
  // Two arrays follow the struct: i64 padded[max local experts] and i64 real[max local experts].
};

}  // namespace switchyard::cuda
