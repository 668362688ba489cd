// What the chunks of a dispatch carry, whoever moves their rows.
#pragma once

#include <vector>

#include "call/hosted/row_mover.hpp"
#include "layout/scale_out/chunk_writer.hpp"
#include "layout/scale_out/dispatch_format.hpp"
#include "layout/scale_out/node_tokens.hpp"
#include "layout/scale_out/placed_tokens.hpp"

namespace switchyard {

class DispatchStreams {
 public:
  // The task must outlive it, and have a crossing.
  explicit DispatchStreams(PlaceTask const& task);
  DispatchStreams(DispatchStreams const&) = delete;
  DispatchStreams& operator=(DispatchStreams const&) = delete;

  [[nodiscard]] scale_out::DispatchTerms const& terms() const noexcept { return terms_; }
  // What this rank sends to a node.
  [[nodiscard]] scale_out::DispatchStream to(int node) const;
  // What is known beforehand of the rank that is served as number `i`: counts; along a handle where its rows are.
  [[nodiscard]] scale_out::ServedTokens const& served(std::size_t i) const;

 private:
  PlaceTask const& task_;
  scale_out::DispatchTerms terms_;
  std::vector<scale_out::NodeTokens> by_rank_;  // along a handle, without ids: tokens by node
};

}  // namespace switchyard
