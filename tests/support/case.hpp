// What one conformance case varies.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <vector>

#include "oracle/job.hpp"
#include "support/scale.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::test {

enum class Launch : std::uint8_t { threads, processes };
// distinct ids; most to few experts; all to expert 0; many -1; all -1; the same id in several slots.
enum class Routing : std::uint8_t { uniform, skewed, one_expert, sparse, none, repeated };
enum class Tokens : std::uint8_t { equal, varied, first_only, last_none, all_none };

struct Case {
  Launch launch = Launch::threads;
  int ranks = 2;
  std::vector<int> nodes{};  // by rank, the node; empty: as played_nodes() says
  std::int64_t tokens = 6;   // most of any rank
  Tokens counts = Tokens::varied;
  std::int64_t hidden = 20;
  int experts = 8;
  int top_k = 2;
  Routing routing = Routing::uniform;
  DType dtype = DType::bf16;
  DType combine_dtype = DType::bf16;
  DType id_dtype = DType::i64;
  bool by_rank = false;  // token_in_rank instead of topk_idx
  bool weights = true;
  bool cast = false;
  OutputLayout layout = OutputLayout::flat;
  int alignment = 1;
  bool zero_padding = false;
  bool worst = false;
  std::int64_t worst_rows = 0;    // with worst; 0: a few more than arrive
  std::int64_t extra_stride = 0;  // elements between rows of x
  bool scales_by_column = false;
  bool f32_partials = false;  // of combines over nodes
  int workers = 1;
  std::uint64_t seed = seed_or(1);

  [[nodiscard]] bool expanded() const { return layout == OutputLayout::expanded; }
  [[nodiscard]] std::int64_t groups() const { return (hidden + 127) / 128; }
};

constexpr char const* name_of(Launch launch) {
  return launch == Launch::threads ? "threads" : "processes";
}

constexpr char const* name_of(Routing routing) {
  constexpr char const* names[] = {"uniform", "skewed", "one_expert", "sparse", "none", "repeated"};
  return names[static_cast<int>(routing)];
}

constexpr char const* name_of(Tokens counts) {
  constexpr char const* names[] = {"equal", "varied", "first_only", "last_none", "all_none"};
  return names[static_cast<int>(counts)];
}

// As designated initialisers, to paste into a test.
std::ostream& operator<<(std::ostream& out, Case const& c);

// For the oracle.
oracle::Terms terms_of(Case const& c);

}  // namespace switchyard::test
