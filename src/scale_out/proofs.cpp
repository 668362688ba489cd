#include "scale_out/proofs.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/check.hpp"

namespace switchyard::scale_out {

Proofs::Proofs(Job const& job, std::span<Neighbour const> neighbours)
    : job_(job), neighbours_(neighbours), challenges_(neighbours.size()), taken_(neighbours.size()) {}

void Proofs::put_card(MessageWriter& message) const {
  message.put_bytes(challenge_);
}

void Proofs::read_cards(std::vector<MessageReader>& ranks) {
  std::vector<ByteView> challenges;
  for (MessageReader& rank : ranks) {
    challenges.push_back(rank.get_bytes());
    require(challenges.back().size() == challenge_.size(), "challenge of a rank: expected {} bytes, seen {}",
            challenge_.size(), challenges.back().size());
  }
  for (std::size_t i = 0; i < neighbours_.size(); ++i)
    std::ranges::copy(challenges.at(static_cast<std::size_t>(neighbours_[i].member.rank)), challenges_[i].begin());
}

// All parts have fixed sizes, so no two uses join to the same bytes.
Mac Proofs::proof(Nonce const& challenge, int from, int to, int end) const {
  constexpr std::string_view purpose = "switchyard data endpoint";
  std::array const which{from, to, end};
  return job_.key().mac({std::as_bytes(std::span(purpose)), challenge, std::as_bytes(std::span(which))});
}

Mac Proofs::own(int neighbour, int end) const {
  auto const i = static_cast<std::size_t>(neighbour);
  return proof(challenges_[i], job_.rank(), neighbours_[i].member.rank, end);
}

bool Proofs::take(int neighbour, int end, ByteView seen) {
  auto const i = static_cast<std::size_t>(neighbour);
  std::uint64_t const bit = std::uint64_t{1} << static_cast<unsigned>(end);
  if ((taken_[i] & bit) != 0) return false;
  Mac const expected = proof(challenge_, neighbours_[i].member.rank, job_.rank(), end);
  if (!equal_in_constant_time(expected, seen)) return false;
  taken_[i] |= bit;
  return true;
}

bool Proofs::complete(int neighbour, int ends) const {
  std::uint64_t const all = (std::uint64_t{1} << static_cast<unsigned>(ends)) - 1;
  return taken_[static_cast<std::size_t>(neighbour)] == all;
}

}  // namespace switchyard::scale_out
