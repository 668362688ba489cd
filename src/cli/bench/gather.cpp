#include "cli/bench/gather.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

namespace switchyard::cli {

namespace {

// Any numbers of all ranks, by rank.
std::vector<std::vector<double>> gather_numbers(Communicator& communicator, std::span<double const> mine) {
  std::vector<std::vector<double>> all;
  for (auto const& bytes : communicator.all_gather(std::as_bytes(mine))) {
    all.emplace_back(bytes.size() / sizeof(double));
    if (!all.back().empty()) std::memcpy(all.back().data(), bytes.data(), all.back().size() * sizeof(double));
  }
  return all;
}

// Lists that any rank has numbers in.
std::vector<std::size_t> filled_lists(Communicator& communicator, Samples const& mine) {
  std::vector<double> sizes;
  for (auto const& list : mine.lists()) sizes.push_back(static_cast<double>(list.size()));
  auto const all = gather_numbers(communicator, sizes);
  std::vector<std::size_t> filled;
  for (std::size_t at = 0; at < sizes.size(); ++at) {
    if (std::ranges::any_of(all, [at](auto const& rank) { return rank[at] > 0; })) filled.push_back(at);
  }
  return filled;
}

}  // namespace

// A list at a time, as only so much fits into one all_gather.
std::vector<Samples> gather_samples(Communicator& communicator, Samples const& mine) {
  std::vector<Samples> all(static_cast<std::size_t>(communicator.size()));
  for (std::size_t const at : filled_lists(communicator, mine)) {
    auto rows = gather_numbers(communicator, mine.lists()[at]);
    for (std::size_t rank = 0; rank < all.size(); ++rank) all[rank].lists()[at] = std::move(rows[rank]);
  }
  return all;
}

std::vector<std::string> gather_mismatches(Communicator& communicator, std::optional<std::string> const& mine) {
  std::vector<std::string> found;
  std::string const own = mine.value_or("");
  for (auto const& bytes : communicator.all_gather(std::as_bytes(std::span(own)))) {
    if (!bytes.empty()) found.emplace_back(reinterpret_cast<char const*>(bytes.data()), bytes.size());
  }
  return found;
}

int count_same(Communicator& communicator, std::string const& mine) {
  auto const own = std::as_bytes(std::span(mine));
  auto const all = communicator.all_gather(own);
  return static_cast<int>(
      std::ranges::count_if(all, [&](auto const& theirs) { return std::ranges::equal(theirs, own); }));
}

std::int64_t gather_min(Communicator& communicator, std::int64_t mine) {
  std::array const own{static_cast<double>(mine)};  // exact: less than 2^53
  std::int64_t least = mine;
  for (auto const& theirs : gather_numbers(communicator, own))
    least = std::min(least, static_cast<std::int64_t>(theirs.at(0)));
  return least;
}

}  // namespace switchyard::cli
