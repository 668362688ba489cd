// Handshakes with a peer that says what it likes: neither end is done without the key, reads further than it
// should, or answers with more than the message that is due.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "bootstrap/handshake.hpp"

namespace {

using namespace switchyard;

void check(bool condition) {
  if (!condition) std::abort();
}

Key const& key() {
  static Key const key = Key::of_token("the token");
  return key;
}

// In the pieces that the input asks for.
void check_end(Handshake handshake, ByteView input, std::size_t piece, std::size_t most_output) {
  std::size_t sent = handshake.take_output().size();
  while (!input.empty() && handshake.due() > 0) {
    ByteView const bytes = input.first(std::min(piece, input.size()));
    std::size_t const taken = handshake.feed(bytes);
    check(taken > 0 && taken <= bytes.size());
    input = input.subspan(taken);
    sent += handshake.take_output().size();
  }
  check(handshake.state() != HandshakeState::done);
  check((handshake.state() == HandshakeState::failed) == (handshake.problem() != HandshakeProblem::none));
  check(handshake.state() != HandshakeState::failed || (handshake.due() == 0 && handshake.feed(input) == 0));
  check(sent <= most_output);
}

// The input is XORed onto what goes from one end to the other: unless it is zero there, neither is done.
void check_meddling(ByteView input) {
  Handshake::Terms const terms{.purpose = HandshakePurpose::control, .self = {.rank = 1}, .peer = {.rank = 2}};
  Handshake dialer = Handshake::connect(key(), terms);
  Handshake listener =
      Handshake::accept(key(), {.purpose = HandshakePurpose::control, .self = {.rank = 2}, .peer = {}});
  bool changed_early = false;
  bool changed = false;
  for (int message = 0; message < 4; ++message) {
    Handshake& from = message % 2 == 0 ? dialer : listener;
    Handshake& to = message % 2 == 0 ? listener : dialer;
    auto bytes = from.take_output();
    for (std::byte& byte : bytes) {
      if (input.empty()) break;
      byte ^= input.front();
      changed = changed || input.front() != std::byte{};
      input = input.subspan(1);
    }
    if (message < 3) changed_early = changed;
    to.feed(bytes);
  }
  check((listener.state() == HandshakeState::done) == !changed_early);
  check((dialer.state() == HandshakeState::done) == !changed);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = std::as_bytes(std::span(data, size));
  if (input.empty()) return 0;
  std::size_t const piece = 1 + std::to_integer<std::size_t>(input.front());
  ByteView const rest = input.subspan(1);
  Handshake::Terms const terms{.purpose = HandshakePurpose::store, .self = {}, .peer = {}};
  // Fixed nonces, so that a corpus keeps its meaning.
  check_end(Handshake::connect(key(), terms, Nonce{}), rest, piece,
            sizeof(HandshakeHello) + sizeof(HandshakeProof));
  check_end(Handshake::accept(key(), terms, Nonce{}), rest, piece,
            sizeof(HandshakeChallenge) + sizeof(HandshakeRefusal));
  check_meddling(rest);
  return 0;
}
