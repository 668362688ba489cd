// Writes rows of a dispatch into slots of a receiver of this node, for whichever rank they are from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "call/low_latency.hpp"
#include "engine/cpu/low_latency/slots.hpp"
#include "engine/cpu/row_loader.hpp"
#include "engine/cpu/simd/kernels.hpp"

namespace switchyard::cpu {

// While the rows of all ranks together are no more than this (a part of a last-level cache), their receivers find
// them in the cache, and a dispatch takes half the time that it takes with stores past the caches. With more it is
// the other way round. All ranks are taken to send as much as this one.
inline bool is_too_much_for_caches(Slots const& slots, SlotRows const& rows, std::size_t sent) noexcept {
  constexpr std::size_t most_cached = std::size_t{8} << 20;
  return static_cast<std::size_t>(slots.num_ranks()) * sent * rows.row_bytes() > most_cached;
}

// A slot of a bay: `index` counts within the expert's slots (expert_major), or among all (rank_major, group 0).
struct SlotPlace {
  std::byte* bay = nullptr;
  std::int64_t group = 0;
  std::int64_t index = 0;
};

class SlotStore {
 public:
  // `streamed`: past the caches; store_fence() comes before the flags then.
  SlotStore(Slots const& slots, SlotRows const& rows, bool streamed)
      : slots_(slots), rows_(rows), streamed_(streamed) {}

  void store(SlotPlace const& to, LoadedRow const& row, std::int32_t token) const {
    SlotLayoutBytes const& at = slots_.at();
    store_scales(to.bay + at.scales, to, row);
    auto const index = static_cast<std::size_t>(to.group * slots_.expert_slots() + to.index);
    copy_row(to.bay + at.x + index * rows_.row_bytes(), row.x);
    reinterpret_cast<std::int32_t*>(to.bay + at.source_token)[index] = token;
  }

  // rank_major: where the local ids and the weights of the slot's row lie, [K] each.
  [[nodiscard]] std::int32_t* ids(SlotPlace const& to) const {
    return reinterpret_cast<std::int32_t*>(to.bay + slots_.at().topk_idx) + to.index * slots_.sizes().top_k;
  }
  [[nodiscard]] float* weights(SlotPlace const& to) const {
    return reinterpret_cast<float*>(to.bay + slots_.at().topk_weights) + to.index * slots_.sizes().top_k;
  }

 private:
  void copy_row(std::byte* to, std::byte const* from) const {
    if (streamed_) {
      stream_copy(to, from, rows_.row_bytes());
    } else {
      std::memcpy(to, from, rows_.row_bytes());
    }
  }

  void store_scales(std::byte* scales, SlotPlace const& at, LoadedRow const& row) const {
    if (row.scales == nullptr) return;
    std::size_t const slots = static_cast<std::size_t>(at.group * slots_.expert_slots());
    std::byte* const to = scales + slots * rows_.scale_bytes();
    if (!rows_.column_major()) {
      std::memcpy(to + static_cast<std::size_t>(at.index) * rows_.scale_bytes(), row.scales, rows_.scale_bytes());
      return;
    }
    auto* column = reinterpret_cast<std::uint32_t*>(to) + at.index;
    for (std::int64_t element = 0; element < rows_.scale_elements; ++element, column += slots_.expert_slots())
      std::memcpy(column, row.scales + static_cast<std::size_t>(element) * sizeof *column, sizeof *column);
  }

  Slots const& slots_;
  SlotRows rows_;
  bool streamed_;
};

}  // namespace switchyard::cpu
