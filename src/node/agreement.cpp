#include "node/agreement.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/check.hpp"

namespace switchyard {

std::uint64_t least_of(RankGroup& ranks, std::uint64_t mine) {
  return std::ranges::min(gather(ranks, "a number", mine));
}

void agree(RankGroup& ranks, std::optional<Refusal> const& refusal) {
  // A rank that has no objection sends nothing. The others send the code of their error in a byte, then its text.
  std::string message;
  if (refusal) message = static_cast<char>(refusal->code) + refusal->text;
  auto const all = ranks.all_gather(std::as_bytes(std::span(message)));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].empty()) continue;
    std::string const text(reinterpret_cast<char const*>(all[rank].data()) + 1, all[rank].size() - 1);
    throw_error(static_cast<ErrorCode>(all[rank][0]), fmt::format("rank {}: {}", rank, text),
                {.rank = static_cast<int>(rank), .phase = "construction"});
  }
}

}  // namespace switchyard
