// What the host and its own GPU tell each other, in pinned host memory that the GPU maps. One per buffer and rank.
#pragma once

#include <cstdint>

#include "layout/control.hpp"
#include "layout/device_control.hpp"

namespace switchyard::cuda {

// Where a kernel was when a wait failed; names in trouble.cpp.
enum class Phase : std::uint32_t {
  none,
  announce,
  answer,
  arrive,
  combine_announce,
  stage,
  combine_close,
  gate,
  // Low-latency mode.
  slots_credit,
  slots_claim,
  slots_arrive,
  slots_ready,
};

enum class TroubleKind : std::uint32_t {
  none,
  timeout,
  peer_lost,
  aborted,      // another rank reported a failure through the host's control block
  broken,       // a peer's answer points outside of its heap
  mismatch,     // a peer makes another call, or refuses
  corrupt,      // counts out of range
  too_few_rows  // num_worst_tokens below what arrives
};

struct Trouble {
  std::uint32_t state;  // 0: none; 1: readable
  TroubleKind kind;
  Phase phase;
  std::int32_t peer;
  std::uint64_t expected;
  std::uint64_t seen;
};

struct Mailbox {
  // Host to GPU.
  alignas(cache_line) std::uint64_t lost;  // bit per rank that has ended or left
  std::uint32_t aborted;                   // 1: give up
  // GPU to host: the first trouble; written once, then state (release).
  alignas(cache_line) Trouble trouble;
  // GPU to host, low-latency mode: token * 64 + slot of an id out of range, plus 1; 0: none since the host looked.
  alignas(cache_line) std::uint64_t bad_slot;
  // GPU to host: the outcome of the call with this ticket; the ticket is written last (release), as ticket * 2,
  // plus 1 when there is a trouble, which may arrive later.
  alignas(cache_line) std::uint64_t ticket;
  std::uint64_t answered;             // dispatch: likewise, of the answers
  std::int64_t rows;                  // received, without those of a worst case
  std::int64_t bad_id;                // token * 64 + slot of the first id out of range; -1: none
  std::uint64_t answers_are_certain;  // 1: no peer can refuse any more
  std::int64_t recv_rows_end[max_node_ranks];
  // Behind it: i64 padded[max local experts], i64 real[max local experts].
};

}  // namespace switchyard::cuda
