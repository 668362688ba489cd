#include "checks.hpp"

#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "device.hpp"

namespace example {

namespace {

struct Origin {
  int rank;
  int token;
};

[[noreturn]] void fail(std::string const& what) {
  throw std::runtime_error("wrong result: " + what);
}

// The rows that this rank must have, in their order: by source rank, then by token.
std::vector<Origin> expected_rows(Job const& job) {
  std::vector<Origin> rows;
  for (int rank = 0; rank < job.ranks; ++rank)
    for (int token = 0; token < job.tokens; ++token)
      if (goes_to(job, rank, token, job.rank)) rows.push_back({rank, token});
  return rows;
}

void check_ids(Job const& job, std::vector<Origin> const& rows, std::vector<std::int64_t> const& ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::size_t const row = i / top_k;
    std::int64_t expected = -1;  // not ours, or behind the last row
    if (row < rows.size()) {
      int const expert = expert_of(job, rows[row].rank, rows[row].token, static_cast<int>(i % top_k));
      if (expert / experts_per_rank == job.rank) expected = expert % experts_per_rank;
    }
    if (ids[i] != expected) fail("topk_idx of row " + std::to_string(row));
  }
}

void check_row(std::uint16_t const* row, std::uint32_t key, std::string const& name) {
  for (int column = 0; column < hidden; ++column)
    if (row[column] != bf16_of(value_at(key, column))) fail(name + ", element " + std::to_string(column));
}

}  // namespace

void check_dispatched(Job const& job, switchyard::Dispatched const& routed, int run) {
  std::vector<Origin> const rows = expected_rows(job);
  if (routed.x.size(0) < static_cast<std::int64_t>(rows.size())) fail("too few rows");
  auto const x = to_host(routed.x.data<std::uint16_t>(), rows.size() * hidden);
  auto const sources = to_host(routed.source_token.data<std::int32_t>(), rows.size());
  auto const all_ids = static_cast<std::size_t>(routed.topk_idx.size(0)) * top_k;
  check_ids(job, rows, to_host(routed.topk_idx.data<std::int64_t>(), all_ids));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto const [rank, token] = rows[i];
    std::string const name = "row " + std::to_string(i) + ", which is token " + std::to_string(token) +
                             " of rank " + std::to_string(rank);
    if (sources[i] != token) fail("source of " + name);
    check_row(&x[i * hidden], row_key(seed_of_x(rank, run), token), name);
  }
}

void check_product(Job const& job, Product const& product, int run) {
  int const across = product.width / tile;
  for (int i = 0; i < product.tokens / tile * across; ++i) {
    std::uint32_t const place = mixed(static_cast<std::uint32_t>(run) << 16 ^ static_cast<std::uint32_t>(i));
    int const row = i / across * tile + static_cast<int>(place % tile);
    int const column = i % across * tile + static_cast<int>(place / tile % tile);
    std::uint32_t const x = row_key(seed_of_x(job.rank, run), row);
    std::uint32_t const w = row_key(seed_of_w, column);
    int expected = 0;
    for (int k = 0; k < product.inner; ++k) expected += value_at(x, k) * value_at(w, k);
    float const seen = to_host(product.y + static_cast<std::int64_t>(row) * product.width + column, 1)[0];
    if (seen != static_cast<float>(expected))
      fail("y[" + std::to_string(row) + ", " + std::to_string(column) + "]: expected " + std::to_string(expected) +
           ", seen " + std::to_string(seen));
  }
}

}  // namespace example
