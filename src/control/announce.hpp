// The first round of every call: each rank announces to all others what it was asked to do. They refuse together
// when one of them must refuse, or when they were not asked the same.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/refusal.hpp"
#include "control/control_area.hpp"
#include "control/signals.hpp"
#include "layout/node_in_job.hpp"
#include "switchyard/dtype.hpp"

namespace switchyard {

// The scales that travel with a token, as a term: scales of other dtypes are not alike, however many bytes they
// are.
struct TokenScales {
  DType dtype = DType::f32;
  std::size_t bytes = 0;  // 0: there are none
};
[[nodiscard]] constexpr std::int64_t term_of_scales(TokenScales const& scales) noexcept {
  return scales.bytes == 0
             ? 0
             : static_cast<std::int64_t>(scales.bytes << 8U) | static_cast<std::int64_t>(scales.dtype);
}
[[nodiscard]] constexpr TokenScales scales_of_term(std::int64_t term) noexcept {
  return {static_cast<DType>(term & 0xff), static_cast<std::size_t>(term) >> 8U};
}

// What all ranks must ask alike in one call.
struct CallTerms {
  std::array<std::int64_t, num_terms> values{};

  std::int64_t& operator[](Term term) { return values[static_cast<std::size_t>(term)]; }
};

// What this rank announces.
struct Announcement {
  std::uint64_t epoch = 0;
  char const* phase = "";
  CallTerms terms{};
  std::optional<Refusal> refusal{};  // why this rank cannot take part; every rank throws it
  // A rank of another node that this one serves refuses, or was asked something else: PassedOn says what.
  bool trouble = false;
  // Combine: where the expert outputs, their top-k weights and their row weights begin in this rank's heap; -1:
  // none.
  std::int64_t x_offset = -1;
  std::int64_t weights_offset = -1;
  std::int64_t row_weights_offset = -1;
  // Dispatch: where rows may go without an answer, and how many; -1: nowhere.
  std::int64_t block_offset = -1;
  std::int64_t block_rows = -1;
};

// The control blocks of all ranks of a node, and the way to signal and to wait, as one rank sees them. Ranks here
// are local ranks, those of `job` are the job's.
struct Link {
  ControlArea const& control;
  Signals& signals;
  int rank;
  int num_ranks;
  NodeInJob const& job;
  // [ranks of the job] gets how long each was waited for; empty: nobody counts.
  std::span<std::int64_t> wait_ns{};
};

// Collective. What a peer is to read along with the announcement (its counts, say) must lie in its control block
// before. When one rank refuses, or terms differ, all ranks throw the same error, and the buffer stays usable.
void open_call(Link const& link, Announcement const& announcement);

}  // namespace switchyard
