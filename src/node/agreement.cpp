#include "node/agreement.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/check.hpp"

namespace switchyard {

std::uint64_t least_of(Node& node, std::uint64_t mine) {
  std::uint64_t least = mine;
  auto const all = node.all_gather(bytes_of(mine));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    std::uint64_t theirs = 0;
    require(all[rank].size() == sizeof theirs, "rank {}: a number: expected {} bytes, seen {}", rank, sizeof theirs,
            all[rank].size());
    std::memcpy(&theirs, all[rank].data(), sizeof theirs);
    least = std::min(least, theirs);
  }
  return least;
}

void agree(Node& node, std::optional<Refusal> const& refusal) {
  std::string message;  // empty: no objection; otherwise a byte of code, then the text
  if (refusal) message = static_cast<char>(refusal->code) + refusal->text;
  auto const all = node.all_gather(std::as_bytes(std::span(message)));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].empty()) continue;
    std::string const text(reinterpret_cast<char const*>(all[rank].data()) + 1, all[rank].size() - 1);
    throw_error(static_cast<ErrorCode>(all[rank][0]), fmt::format("rank {}: {}", rank, text),
                {.rank = static_cast<int>(rank), .phase = "construction"});
  }
}

}  // namespace switchyard
