// How the ranks at the two ends of a data endpoint show each other who they are. The transport connects endpoints
// itself, and asks nobody. So each rank tells its neighbours a challenge, over connections that have shown the
// token, and the first thing that a neighbour writes through each endpoint is an answer that only the job's key
// gives. Whoever else is found at an address fails the port before it has carried anything; and an address that
// does not lead to the neighbour, or a port that is closed on the way, shows when a port is made and not in the
// first call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bootstrap/handshake.hpp"
#include "bootstrap/mac.hpp"
#include "job/job.hpp"
#include "job/message.hpp"
#include "scale_out/neighbours.hpp"
#include "scale_out/port_layout.hpp"

namespace switchyard::scale_out {

// Endpoints of a rank, as far as places of notices hold their proofs: no notice is said before all are there.
inline constexpr int proofs_of_a_place = static_cast<int>(notice_bytes / sizeof(Mac));
inline constexpr int most_proofs = notice_places * proofs_of_a_place;

// Where in a place of notices lies the proof of an endpoint.
struct ProofPlace {
  int notice = 0;
  std::size_t offset = 0;
};
constexpr ProofPlace proof_place_of(int end) noexcept {
  return {.notice = end / proofs_of_a_place,
          .offset = static_cast<std::size_t>(end % proofs_of_a_place) * sizeof(Mac)};
}

class Proofs {
 public:
  // Both must outlive it.
  Proofs(Job const& job, std::span<Neighbour const> neighbours);

  // This rank's challenge, and those of all.
  void put_card(MessageWriter& message) const;
  void read_cards(std::vector<MessageReader>& ranks);

  // What this rank writes to a neighbour through an endpoint.
  [[nodiscard]] Mac own(int neighbour, int end) const;
  // Takes what has come from the neighbour through its endpoint. False: it is no proof, or the second.
  [[nodiscard]] bool take(int neighbour, int end, ByteView seen);
  // Whether the neighbour has proven who it is at so many endpoints.
  [[nodiscard]] bool complete(int neighbour, int ends) const;

 private:
  [[nodiscard]] Mac proof(Nonce const& challenge, int from, int to, int end) const;

  Job const& job_;
  std::span<Neighbour const> neighbours_;
  Nonce challenge_ = fresh_nonce();
  std::vector<Nonce> challenges_;     // of the neighbours
  std::vector<std::uint64_t> taken_;  // by neighbour, a bit for each endpoint
};
static_assert(most_proofs <= 64);

}  // namespace switchyard::scale_out
