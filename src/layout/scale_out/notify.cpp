#include "layout/scale_out/notify.hpp"

#include <algorithm>
#include <numeric>

#include "base/check.hpp"

namespace switchyard::scale_out {

namespace {

constexpr std::uint32_t notify_magic = 0x4e4f'5753;  // "SWON", little-endian
constexpr std::uint32_t notify_version = 1;

NodeCounts no_counts(NodeExperts const& node) {
  NodeCounts counts;
  counts.rows.resize(static_cast<std::size_t>(node.num_ranks()));
  counts.slots.resize(static_cast<std::size_t>(node.count()));
  return counts;
}

std::uint64_t sum(std::span<std::uint32_t const> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

void check_header(NotifyHeader const& header, NotifyTerms const& terms, std::size_t bytes) {
  require(header.magic == notify_magic && header.version == notify_version,
          "rank {}: notify: expected version {}, seen magic {:#x}, version {}", terms.source, notify_version,
          header.magic, header.version);
  require(header.epoch == terms.epoch, "rank {}: notify: epoch: expected {}, seen {}", terms.source, terms.epoch,
          header.epoch);
  require(header.bytes == bytes, "rank {}: notify: bytes: expected {}, seen {}", terms.source, bytes, header.bytes);
  std::int64_t const most = header.digest == 0 ? 0 : terms.max_tokens;
  require(header.tokens <= most, "rank {}: notify: tokens: expected 0..{}, seen {}", terms.source, most,
          header.tokens);
}

// Each token has a row on one or more of the ranks, and one row on each at most.
void check_rows(NodeCounts const& counts, int source) {
  for (std::size_t rank = 0; rank < counts.rows.size(); ++rank) {
    require(counts.rows[rank] <= counts.tokens, "rank {}: notify: rows of local rank {}: expected 0..{}, seen {}",
            source, rank, counts.tokens, counts.rows[rank]);
  }
  require(sum(counts.rows) >= counts.tokens,
          "rank {}: notify: rows of all local ranks: expected at least {}, seen {}", source, counts.tokens,
          sum(counts.rows));
}

// Each row of a rank stands for 1 to top_k slots of its experts; without ids there are none.
void check_slots(NodeCounts const& counts, NotifyTerms const& terms, NodeExperts const& node) {
  auto const top_k = static_cast<std::uint64_t>(terms.top_k);
  for (int rank = 0; rank < node.num_ranks(); ++rank) {
    auto const first = static_cast<std::size_t>(node.first(rank));
    auto const count = static_cast<std::size_t>(node.first(rank + 1)) - first;
    std::uint64_t const slots = sum(std::span(counts.slots).subspan(first, count));
    std::uint64_t const rows = counts.rows[static_cast<std::size_t>(rank)];
    std::uint64_t const least = top_k > 0 ? rows : 0;
    require(slots >= least && slots <= rows * top_k,
            "rank {}: notify: slots of local rank {}: expected {}..{}, seen {}", terms.source, rank, least,
            rows * top_k, slots);
  }
  require(sum(counts.slots) <= counts.tokens * top_k, "rank {}: notify: slots: expected at most {}, seen {}",
          terms.source, counts.tokens * top_k, sum(counts.slots));
}

}  // namespace

std::size_t notify_bytes(NodeExperts const& node) {
  return sizeof(NotifyHeader) + static_cast<std::size_t>(node.num_ranks() + node.count()) * sizeof(std::uint32_t);
}

void write_notify(std::span<std::byte> to, std::uint64_t epoch, Notify const& notify) {
  NodeCounts const& counts = notify.counts;
  std::size_t const slots_at = sizeof(NotifyHeader) + counts.rows.size() * sizeof(std::uint32_t);
  std::size_t const bytes = slots_at + counts.slots.size() * sizeof(std::uint32_t);
  require(to.size() == bytes, "notify: expected room for {} bytes, seen {}", bytes, to.size());
  require(!notify.refused() || counts.tokens == 0, "notify: expected no tokens of a refusal, seen {}",
          counts.tokens);
  store(to.data(), NotifyHeader{.magic = notify_magic,
                                .version = notify_version,
                                .epoch = epoch,
                                .digest = notify.digest,
                                .bytes = static_cast<std::uint32_t>(bytes),
                                .tokens = counts.tokens});
  store_all<std::uint32_t>(to.data() + sizeof(NotifyHeader), counts.rows);
  store_all<std::uint32_t>(to.data() + slots_at, counts.slots);
}

Notify refusal_to(NodeExperts const& node) {
  return {.digest = 0, .counts = no_counts(node)};
}

Notify read_notify(Bytes message, NotifyTerms const& terms, NodeExperts const& node) {
  std::size_t const bytes = notify_bytes(node);
  require(message.size() == bytes, "rank {}: notify: expected {} bytes, seen {}", terms.source, bytes,
          message.size());
  // Read once, so that what is checked is what is used.
  auto const header = load<NotifyHeader>(message.data());
  Notify notify{.digest = header.digest, .counts = no_counts(node)};
  notify.counts.tokens = header.tokens;
  std::size_t const rows_bytes = notify.counts.rows.size() * sizeof(std::uint32_t);
  load_all(message.data() + sizeof header, notify.counts.rows);
  load_all(message.data() + sizeof header + rows_bytes, notify.counts.slots);
  check_header(header, terms, bytes);
  check_rows(notify.counts, terms.source);
  check_slots(notify.counts, terms, node);
  return notify;
}

}  // namespace switchyard::scale_out
