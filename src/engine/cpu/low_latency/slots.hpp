// Where the slots and the words of each rank of this node lie. Ranks are those of the job; memory of other nodes is
// not mapped, and what concerns them lies at the rank of this node that serves them. docs/low-latency.md states who
// writes what, and when.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "layout/experts.hpp"
#include "layout/node_in_job.hpp"
#include "layout/slots.hpp"
#include "memory/symmetric_heap.hpp"

namespace switchyard::cpu {

class Slots {
 public:
  Slots(std::shared_ptr<SymmetricHeap> heap, std::shared_ptr<NodeInJob const> node, SlotSizes const& sizes)
      : heap_(std::move(heap)),
        node_(std::move(node)),
        rank_(node_->rank_of(heap_->rank())),
        sizes_(sizes),
        at_(slot_layout(sizes)),
        experts_(sizes.num_experts, sizes.num_ranks) {}

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] NodeInJob const& node() const noexcept { return *node_; }
  // The ranks of this node, and the number there of one of them.
  [[nodiscard]] std::span<int const> local_ranks() const noexcept {
    return node_->topology().ranks_of(node_->node());
  }
  [[nodiscard]] bool is_local(int rank) const noexcept { return node_->has(rank); }
  [[nodiscard]] int local_of(int rank) const noexcept { return node_->topology().local_rank_of(rank); }
  // The rank of this node that writes here what a rank of the job sends: itself, or who serves it.
  [[nodiscard]] int server_of(int rank) const noexcept {
    return node_->rank_of(node_->served().place_of(rank).local_rank);
  }
  [[nodiscard]] int num_ranks() const noexcept { return sizes_.num_ranks; }
  [[nodiscard]] std::shared_ptr<SymmetricHeap> const& heap() const noexcept { return heap_; }
  [[nodiscard]] SlotSizes const& sizes() const noexcept { return sizes_; }
  [[nodiscard]] SlotLayoutBytes const& at() const noexcept { return at_; }
  [[nodiscard]] ExpertSplit const& experts() const noexcept { return experts_; }
  [[nodiscard]] int local_experts() const noexcept { return experts_.count(rank()); }
  // Slots of one expert: R*M.
  [[nodiscard]] std::int64_t expert_slots() const noexcept {
    return static_cast<std::int64_t>(sizes_.sources_rows());
  }

  // The flags of a frame at `owner`, by the peer that writes them.
  [[nodiscard]] FrameFlag* arrived(int owner, int frame) const noexcept { return flags(owner, at_.arrived, frame); }
  [[nodiscard]] FrameFlag* credits(int owner, int frame) const noexcept { return flags(owner, at_.credit, frame); }
  // The same credits for a rank of another node that `owner` serves, by the local rank of the receiver.
  [[nodiscard]] FrameFlag* served_credits(int owner, int source, int frame) const noexcept {
    auto const index = static_cast<std::size_t>(node_->served().place_of(source).index) - 1;
    auto const served = static_cast<std::size_t>(sizes_.served) - 1;
    return reinterpret_cast<FrameFlag*>(heap(owner) + at_.served_credit) +
           (static_cast<std::size_t>(frame) * served + index) * static_cast<std::size_t>(sizes_.local_ranks);
  }
  [[nodiscard]] FrameFlag* ready(int owner, int frame) const noexcept { return flags(owner, at_.ready, frame); }
  [[nodiscard]] FrameFlag* read(int owner, int frame) const noexcept { return flags(owner, at_.read, frame); }
  // How many rows of an expert the sources have claimed.
  [[nodiscard]] std::atomic_ref<std::uint32_t> claim(int owner, int frame, int local_expert) const noexcept {
    auto const index = static_cast<std::size_t>(frame) * static_cast<std::size_t>(sizes_.max_local_experts) +
                       static_cast<std::size_t>(local_expert);
    return std::atomic_ref(reinterpret_cast<std::uint32_t*>(heap(owner) + at_.claims)[index]);
  }

  [[nodiscard]] std::byte* bay(int owner, int bay) const noexcept { return heap(owner) + at_.bay(bay); }
  // i64[L][R], with the L of the owner.
  [[nodiscard]] std::int64_t* ranges(int owner, int bay) const noexcept {
    return reinterpret_cast<std::int64_t*>(this->bay(owner, bay) + at_.ranges);
  }

 private:
  [[nodiscard]] std::byte* heap(int owner) const noexcept { return heap_->heap(local_of(owner)); }
  [[nodiscard]] FrameFlag* flags(int owner, std::size_t offset, int frame) const noexcept {
    return reinterpret_cast<FrameFlag*>(heap(owner) + offset) +
           static_cast<std::size_t>(frame) * static_cast<std::size_t>(sizes_.num_ranks);
  }

  std::shared_ptr<SymmetricHeap> heap_;
  std::shared_ptr<NodeInJob const> node_;
  int rank_;
  SlotSizes sizes_;
  SlotLayoutBytes at_;
  ExpertSplit experts_;
};

inline std::atomic_ref<std::uint64_t> epoch_of(FrameFlag& flag) noexcept {
  return std::atomic_ref(flag.epoch);
}

// The flags of combines hold the number of the combine below the epoch: 0 for the first one of a dispatch.
inline constexpr int combine_number_bits = 20;

// The words of a flag that go with its epoch. Relaxed: the epoch orders them, since it is released after they are
// written and acquired before they are read.
inline void store_word(std::uint64_t& word, std::uint64_t value) noexcept {
  std::atomic_ref(word).store(value, std::memory_order_relaxed);
}
inline std::uint64_t load_word(std::uint64_t& word) noexcept {
  return std::atomic_ref(word).load(std::memory_order_relaxed);
}

// The rows of an expert that come from one source.
struct SlotRange {
  std::int64_t begin = 0;
  std::int64_t count = 0;

  [[nodiscard]] std::int64_t packed() const noexcept { return begin << 32 | count; }
  static SlotRange unpack(std::int64_t word) noexcept {
    auto const bits = static_cast<std::uint64_t>(word);
    return {static_cast<std::int64_t>(bits >> 32), static_cast<std::int64_t>(bits & 0xffffffff)};
  }
  [[nodiscard]] bool within(std::int64_t slots) const noexcept { return begin <= slots && count <= slots - begin; }
};

// Instead of the digest, in `arrived`: the source takes nothing from this rank, and sends it nothing. Only who
// serves a source of another node says so; no digest of a call comes to it.
inline constexpr std::uint64_t digest_refused = ~std::uint64_t{0};

}  // namespace switchyard::cpu
