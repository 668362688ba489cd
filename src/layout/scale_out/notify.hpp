// The first message of a dispatch from a source to its rail peer on another node: how much will come, or that the
// source refuses the call. Its size follows from the node alone, so it always has the same place there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "layout/scale_out/bytes.hpp"
#include "layout/scale_out/node_experts.hpp"
#include "layout/scale_out/node_tokens.hpp"

namespace switchyard::scale_out {

// Behind it: u32 rows by local rank, then u32 slots by expert of the node.
struct NotifyHeader {
  std::uint32_t magic = 0;
  std::uint32_t version = 0;
  std::uint64_t epoch = 0;
  std::uint64_t digest = 0;  // of the call's terms; 0: the source refuses the call
  std::uint32_t bytes = 0;   // of the whole message
  std::uint32_t tokens = 0;  // of the source that go to the node
};
static_assert(sizeof(NotifyHeader) == 32);

struct Notify {
  std::uint64_t digest = 0;
  NodeCounts counts{};

  [[nodiscard]] bool refused() const noexcept { return digest == 0; }
};

std::size_t notify_bytes(NodeExperts const& node);

// `to` has notify_bytes(). A digest of 0 refuses the call; the counts must then be those of no tokens.
void write_notify(std::span<std::byte> to, std::uint64_t epoch, Notify const& notify);
// What a source sends that refuses.
Notify refusal_to(NodeExperts const& node);

// What the reader knows beforehand.
struct NotifyTerms {
  int source = 0;  // the rank that the message is from
  std::uint64_t epoch = 0;
  int top_k = 0;  // 0: routed by rank
  std::int64_t max_tokens = 0;
};

// Throws InvalidArgument, naming the source, unless the message is whole and its numbers are those of some routing.
Notify read_notify(Bytes message, NotifyTerms const& terms, NodeExperts const& node);

}  // namespace switchyard::scale_out
