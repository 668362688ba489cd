// The first two bytes of an input choose what the reader knows beforehand, of messages to one small node.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "layout/scale_out/notify.hpp"

namespace switchyard::scale_out {

inline constexpr std::uint64_t fuzzed_epoch = 5;

struct NodeInput {
  NodeExperts const& node;
  NotifyTerms terms;
  int choice = 0;  // of the target, any byte
  Bytes rest;
};

// Nothing where there is too little.
inline std::optional<NodeInput> node_input(std::uint8_t const* data, std::size_t size) {
  auto const input = std::as_bytes(std::span(data, size));
  if (input.size() < 2) return std::nullopt;
  static NodeExperts const node(Topology(std::array{0, 1, 1, 1}), ExpertSplit(10, 4), 1);
  bool const by_rank = std::to_integer<int>(input[0]) % 2 == 0;
  return NodeInput{.node = node,
                   .terms = {.source = 3, .epoch = fuzzed_epoch, .top_k = by_rank ? 0 : 3, .max_tokens = 1000},
                   .choice = std::to_integer<int>(input[1]),
                   .rest = input.subspan(2)};
}

}  // namespace switchyard::scale_out
