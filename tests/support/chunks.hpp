// Chunks of a stream, as its source sends them.
#pragma once

#include <algorithm>
#include <vector>

#include "layout/scale_out/chunk_writer.hpp"
#include "support/node_job.hpp"

namespace switchyard::test {

inline constexpr std::uint64_t chunk_epoch = 77;

using ChunkBytes = std::vector<std::byte>;

// What a source sends to a node, and who reads it.
struct StreamOfJob {
  StreamOfJob(NodeJob const& of, int from, int to)
      : job(of),
        source(from),
        node(to),
        experts(of.topology(), of.experts(), to),
        tokens(of.tokens_by_node(from)[static_cast<std::size_t>(to)]) {}

  // All chunks, each as long as it says; a ring slot holds `fill` before.
  [[nodiscard]] std::vector<ChunkBytes> write(std::size_t slot_bytes, std::byte fill = std::byte{0xee}) const {
    scale_out::ChunkWriter writer({.terms = job.terms,
                                   .node = experts,
                                   .tokens = tokens,
                                   .weights = job.terms.weights ? job.weights_of(source) : ConstTensorView{},
                                   .epoch = chunk_epoch});
    std::vector<ChunkBytes> chunks;
    while (!writer.done()) {
      ChunkBytes chunk(slot_bytes, fill);
      std::size_t const bytes = writer.begin(chunk);
      while (auto const row = writer.next_row()) {
        std::ranges::copy(job.row_of(source, row->token), row->x);
        std::ranges::copy(job.scales_of(source, row->token), row->scales);
      }
      chunk.resize(bytes);
      chunk.shrink_to_fit();
      chunks.push_back(std::move(chunk));
    }
    return chunks;
  }

  NodeJob const& job;
  int source;
  int node;
  scale_out::NodeExperts experts;
  scale_out::NodeTokens tokens;
};

template <typename T>
void shuffle(Random& random, std::vector<T>& values) {
  for (std::size_t i = values.size(); i > 1; --i)
    std::swap(values[i - 1], values[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
}

}  // namespace switchyard::test
