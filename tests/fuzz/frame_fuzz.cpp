// The parser of the store's frames: what it accepts lies within the input and encodes to the same bytes. And the
// reader that checks tags: it takes every frame that was sealed for it, and none that was changed.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "bootstrap/tcp_store/frame.hpp"
#include "bootstrap/tcp_store/sealed_frames.hpp"

namespace {

using namespace switchyard;

void check(bool condition) {
  if (!condition) std::abort();
}

bool is_within(ByteView part, ByteView whole) {
  return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
}

MessageTags tags() {
  return MessageTags(Key(Mac{std::byte{42}}));
}

void check_parse(ByteView input) {
  ParsedFrame const parsed = parse_frame(input);
  check((parsed.status == FrameStatus::malformed) == !parsed.problem.empty());
  if (parsed.status != FrameStatus::complete) return;
  check(parsed.bytes >= sizeof(FrameHeader) + Tag{}.size() && parsed.bytes <= input.size());
  check(parsed.frame.key.size() <= max_key_bytes && parsed.frame.value.size() <= max_value_bytes);
  check(is_within(std::as_bytes(std::span(parsed.frame.key)), input) && is_within(parsed.frame.value, input));
  check(parsed.covered.data() == input.data() && parsed.covered.size() + parsed.tag.size() == parsed.bytes);
  auto const sealed = FrameSealer(tags()).seal_whole(parsed.frame);
  check(sealed.size() == parsed.bytes &&
        std::ranges::equal(ByteView(sealed).first(parsed.covered.size()), parsed.covered));
  // One byte less must never do.
  check(parse_frame(input.first(parsed.bytes - 1)).status == FrameStatus::incomplete);
}

// Bytes of a peer that does not know the key.
void check_stranger(ByteView input) {
  FrameOpener opener(tags());
  opener.append(input);
  check(opener.next().status != FrameStatus::complete);
}

// Two frames made of the input arrive in pieces, with a change in them if the input says so.
void check_member(ByteView input) {
  if (input.size() < 4) return;
  auto const number = [&](std::size_t at) { return std::to_integer<std::size_t>(input[at]); };
  ByteView const rest = input.subspan(4);
  ByteView const value = rest.first(std::min(number(0), rest.size()));
  std::string_view const key(reinterpret_cast<char const*>(value.data()), value.size());
  FrameSealer sealer(tags());
  auto bytes = sealer.seal_whole({.op = FrameOp::set, .request = 1, .key = key, .value = rest});
  std::size_t const first = bytes.size();
  auto const second = sealer.seal_whole({.op = FrameOp::get, .request = 2, .key = key, .value = value});
  bytes.insert(bytes.end(), second.begin(), second.end());
  std::size_t const at = number(1) * bytes.size() / 256;
  std::byte const change = input[2];
  bytes[at] ^= change;

  FrameOpener opener(tags());
  std::size_t complete = 0;
  std::size_t const piece = 1 + number(3);
  for (std::size_t from = 0; from < bytes.size(); from += piece) {
    opener.append(ByteView(bytes).subspan(from, std::min(piece, bytes.size() - from)));
    for (ParsedFrame parsed = opener.next(); parsed.status == FrameStatus::complete; parsed = opener.next()) {
      check(parsed.frame.key == key && parsed.frame.value.size() == (complete == 0 ? rest : value).size());
      opener.consume(parsed);
      ++complete;
    }
  }
  std::size_t const intact = at < first ? 0 : 1;
  check(complete == (change == std::byte{} ? 2 : intact));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = std::as_bytes(std::span(data, size));
  check_parse(input);
  check_stranger(input);
  check_member(input);
  return 0;
}
