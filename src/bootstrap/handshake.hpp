// How the two ends of a new connection show each other that they know the job's token, without sending it.
//
// Four messages of fixed sizes:
//
//     who connects -> who accepts   hello: what the connection is for, who connects, who is wanted, a nonce
//                  <-               challenge: a nonce
//                  ->               proof: MAC("... connects", hello, challenge)
//                  <-               proof: MAC("... accepts", hello, challenge)
//
// Whoever connects proves first: a stranger that just connects sees nothing that was computed with the key. In
// place of a challenge or a proof a refusal may come, which says why. docs/protocol.md says what all of this is
// worth.
//
// A machine on bytes: it knows no sockets, allocates no more than a message, and reads no further than the message
// that is due. The store uses it, and so may every connection between two processes of a job.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <vector>

#include "bootstrap/mac.hpp"

namespace switchyard {

inline constexpr std::uint32_t handshake_magic = 0x53485753;  // "SWHS"
inline constexpr std::uint16_t handshake_version = 1;

enum class HandshakeKind : std::uint16_t { hello = 1, challenge, proof, refusal };

enum class HandshakePurpose : std::uint32_t { store = 1, control };

// Who is at an end: a rank, and which of its endpoints. -1: no rank, or one that does not matter.
struct Party {
  std::int32_t rank = -1;
  std::uint32_t endpoint = 0;
  bool operator==(Party const&) const = default;
};

using Nonce = std::array<std::byte, 32>;
Nonce fresh_nonce();

// Little-endian on the wire.
struct HandshakeHeader {
  std::uint32_t magic;
  std::uint16_t version;
  HandshakeKind kind;
};
struct HandshakeHello {
  HandshakeHeader header;
  HandshakePurpose purpose;
  Party from;
  Party to;
  Nonce nonce;
};
struct HandshakeChallenge {
  HandshakeHeader header;
  Nonce nonce;
};
struct HandshakeProof {
  HandshakeHeader header;
  Mac mac;
};
struct HandshakeRefusal {
  HandshakeHeader header;
  std::uint32_t why;  // a HandshakeProblem
};
static_assert(sizeof(HandshakeHello) == 60 && sizeof(HandshakeChallenge) == 40 && sizeof(HandshakeProof) == 40);
static_assert(sizeof(HandshakeRefusal) == 12 && std::is_trivially_copyable_v<HandshakeHello>);

enum class HandshakeProblem : std::uint8_t {
  none,
  malformed,   // the peer does not speak this protocol
  version,     // or another version of it
  not_wanted,  // the connection is for something else, or for somebody else
  wrong_token,
};
std::string_view text_of(HandshakeProblem problem) noexcept;

enum class HandshakeState : std::uint8_t { ongoing, done, failed };

class Handshake {
 public:
  struct Terms {
    HandshakePurpose purpose = HandshakePurpose::store;
    Party self;
    Party peer;  // who is wanted, for an end that connects
  };
  static Handshake connect(Key const& key, Terms const& terms, Nonce const& nonce = fresh_nonce());
  // Takes whoever knows the key and wants `terms.self`; peer() then says who it is.
  static Handshake accept(Key const& key, Terms const& terms, Nonce const& nonce = fresh_nonce());

  [[nodiscard]] HandshakeState state() const noexcept { return state_; }
  // How many bytes of the peer's are due: a caller need not read more. 0 when it is over.
  [[nodiscard]] std::size_t due() const noexcept;
  // Takes bytes of the peer's, up to the end of the handshake, and returns how many.
  std::size_t feed(ByteView bytes);
  // What to send next, also after a failure; nothing the second time.
  std::vector<std::byte> take_output();

  // failed: why, and whether it is the peer that says so.
  [[nodiscard]] HandshakeProblem problem() const noexcept { return problem_; }
  [[nodiscard]] bool refused_by_peer() const noexcept { return refused_by_peer_; }

  // Who connects, as it says: proven once the handshake is done.
  [[nodiscard]] Party peer() const noexcept;
  // done: the tags of what this end sends, and of what the peer sends.
  [[nodiscard]] MessageTags tags_to_send() const { return tags(accepts_); }
  [[nodiscard]] MessageTags tags_to_expect() const { return tags(!accepts_); }

 private:
  Handshake(Key const& key, Terms const& terms, Nonce const& nonce, bool accepts);
  [[nodiscard]] std::size_t size_of_due() const noexcept;
  void on_header();
  void on_message();
  void on_hello();
  void on_challenge();
  void on_proof();
  void on_refusal();
  void send_proof();
  void fail(HandshakeProblem problem);
  [[nodiscard]] Mac proof_of(bool accepter) const;
  [[nodiscard]] MessageTags tags(bool of_accepter) const;

  Key key_;
  Terms terms_;
  Nonce nonce_;
  bool accepts_;
  HandshakeState state_ = HandshakeState::ongoing;
  HandshakeProblem problem_ = HandshakeProblem::none;
  bool refused_by_peer_ = false;
  HandshakeKind due_;
  // Both as they went over the wire; fields of a version to come would be covered, too.
  HandshakeHello hello_{};
  HandshakeChallenge challenge_{};
  std::array<std::byte, sizeof(HandshakeHello)> in_{};
  std::size_t received_ = 0;
  std::vector<std::byte> out_;
};

}  // namespace switchyard
