#include "bootstrap/handshake.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/random.hpp"

namespace switchyard {

static_assert(std::endian::native == std::endian::little, "messages are copied to the wire as they are");

namespace {

template <typename Message>
ByteView bytes_of_message(Message const& message) {
  static_assert(std::has_unique_object_representations_v<Message>, "a message has no padding");
  return std::as_bytes(std::span(&message, 1));
}

template <typename Message>
Message message_in(ByteView bytes) {
  Message message;
  std::memcpy(&message, bytes.data(), sizeof message);
  return message;
}

HandshakeHeader header_of(HandshakeKind kind) noexcept {
  return {.magic = handshake_magic, .version = handshake_version, .kind = kind};
}

template <typename Message>
void append(std::vector<std::byte>& out, Message const& message) {
  auto const bytes = bytes_of_message(message);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

std::size_t size_of_message(HandshakeKind kind) noexcept {
  switch (kind) {
    case HandshakeKind::hello: return sizeof(HandshakeHello);
    case HandshakeKind::challenge: return sizeof(HandshakeChallenge);
    case HandshakeKind::proof: return sizeof(HandshakeProof);
    case HandshakeKind::refusal: return sizeof(HandshakeRefusal);
  }
  return sizeof(HandshakeHeader);
}

bool is_a_reason(std::uint32_t why) noexcept {
  return why >= static_cast<std::uint32_t>(HandshakeProblem::version) &&
         why <= static_cast<std::uint32_t>(HandshakeProblem::wrong_token);
}

}  // namespace

Nonce fresh_nonce() {
  Nonce nonce{};
  fill_random(nonce);
  return nonce;
}

std::string_view text_of(HandshakeProblem problem) noexcept {
  switch (problem) {
    case HandshakeProblem::none: return "no problem";
    case HandshakeProblem::malformed: return "not a handshake of this protocol";
    case HandshakeProblem::version: return "another version of the protocol";
    case HandshakeProblem::not_wanted: return "a connection for something or somebody else";
    case HandshakeProblem::wrong_token: return "wrong token";
  }
  return "unknown problem";
}

Handshake Handshake::connect(Key const& key, Terms const& terms, Nonce const& nonce) {
  Handshake handshake(key, terms, nonce, false);
  handshake.hello_ = {.header = header_of(HandshakeKind::hello),
                      .purpose = terms.purpose,
                      .from = terms.self,
                      .to = terms.peer,
                      .nonce = nonce};
  append(handshake.out_, handshake.hello_);
  return handshake;
}

Handshake Handshake::accept(Key const& key, Terms const& terms, Nonce const& nonce) {
  return {key, terms, nonce, true};
}

Handshake::Handshake(Key const& key, Terms const& terms, Nonce const& nonce, bool accepts)
    : key_(key),
      terms_(terms),
      nonce_(nonce),
      accepts_(accepts),
      due_(accepts ? HandshakeKind::hello : HandshakeKind::challenge) {}

// Of the message that has begun: the header is read first, since a refusal is shorter than what it comes in place
// of.
std::size_t Handshake::size_of_due() const noexcept {
  return received_ < sizeof(HandshakeHeader) ? sizeof(HandshakeHeader) : size_of_message(due_);
}

std::size_t Handshake::due() const noexcept {
  return state_ == HandshakeState::ongoing ? size_of_due() - received_ : 0;
}

std::size_t Handshake::feed(ByteView bytes) {
  std::size_t taken = 0;
  while (due() > 0 && taken < bytes.size()) {
    std::size_t const step = std::min(due(), bytes.size() - taken);
    std::ranges::copy(bytes.subspan(taken, step), in_.begin() + static_cast<std::ptrdiff_t>(received_));
    received_ += step;
    taken += step;
    if (received_ == sizeof(HandshakeHeader)) on_header();
    if (state_ == HandshakeState::ongoing && received_ == size_of_message(due_)) {
      received_ = 0;
      on_message();
    }
  }
  return taken;
}

std::vector<std::byte> Handshake::take_output() {
  return std::exchange(out_, {});
}

void Handshake::on_header() {
  auto const header = message_in<HandshakeHeader>(in_);
  if (header.magic != handshake_magic) return fail(HandshakeProblem::malformed);
  // A refusal looks the same in every version, so that one that is older or newer can say so.
  if (!accepts_ && header.kind == HandshakeKind::refusal) {
    due_ = HandshakeKind::refusal;
    return;
  }
  if (header.version != handshake_version) return fail(HandshakeProblem::version);
  if (header.kind != due_) return fail(HandshakeProblem::malformed);
}

void Handshake::on_message() {
  switch (due_) {
    case HandshakeKind::hello: return on_hello();
    case HandshakeKind::challenge: return on_challenge();
    case HandshakeKind::proof: return on_proof();
    case HandshakeKind::refusal: return on_refusal();
  }
}

void Handshake::on_hello() {
  hello_ = message_in<HandshakeHello>(in_);
  if (hello_.purpose != terms_.purpose || hello_.to != terms_.self) return fail(HandshakeProblem::not_wanted);
  challenge_ = {.header = header_of(HandshakeKind::challenge), .nonce = nonce_};
  append(out_, challenge_);
  due_ = HandshakeKind::proof;
}

void Handshake::on_challenge() {
  challenge_ = message_in<HandshakeChallenge>(in_);
  send_proof();
  due_ = HandshakeKind::proof;
}

void Handshake::on_proof() {
  auto const proof = message_in<HandshakeProof>(in_);
  if (!equal_in_constant_time(proof.mac, proof_of(!accepts_))) return fail(HandshakeProblem::wrong_token);
  if (accepts_) send_proof();
  state_ = HandshakeState::done;
}

// It proves nothing: whoever sits between two ranks can forge it, as he can cut the connection.
void Handshake::on_refusal() {
  std::uint32_t const why = message_in<HandshakeRefusal>(in_).why;
  refused_by_peer_ = true;
  state_ = HandshakeState::failed;
  problem_ = is_a_reason(why) ? static_cast<HandshakeProblem>(why) : HandshakeProblem::malformed;
}

void Handshake::send_proof() {
  append(out_, HandshakeProof{.header = header_of(HandshakeKind::proof), .mac = proof_of(accepts_)});
}

// Who does not speak the protocol gets no answer, and only the end that accepts gives reasons.
void Handshake::fail(HandshakeProblem problem) {
  state_ = HandshakeState::failed;
  problem_ = problem;
  if (!accepts_ || problem == HandshakeProblem::malformed) return;
  append(out_,
         HandshakeRefusal{.header = header_of(HandshakeKind::refusal), .why = static_cast<std::uint32_t>(problem)});
}

// The two ends hash different texts, so that a proof sent back to its sender is wrong.
Mac Handshake::proof_of(bool accepter) const {
  std::string_view const who =
      accepter ? "switchyard handshake, who accepts" : "switchyard handshake, who connects";
  return key_.mac({std::as_bytes(std::span(who)), bytes_of_message(hello_), bytes_of_message(challenge_)});
}

// A key a connection and direction: a frame of another connection, or one sent back, has a wrong tag.
MessageTags Handshake::tags(bool of_accepter) const {
  std::string_view const who =
      of_accepter ? "switchyard messages, who accepts" : "switchyard messages, who connects";
  return MessageTags(
      Key(key_.mac({std::as_bytes(std::span(who)), bytes_of_message(hello_), bytes_of_message(challenge_)})));
}

Party Handshake::peer() const noexcept {
  return accepts_ ? hello_.from : terms_.peer;
}

}  // namespace switchyard
