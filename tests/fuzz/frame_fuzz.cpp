// The parser of the store's frames: what it accepts lies within the input and encodes to the same bytes.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "bootstrap/tcp_store/frame.hpp"

namespace {

void check(bool condition) {
  if (!condition) std::abort();
}

bool is_within(std::span<std::byte const> part, std::span<std::byte const> whole) {
  return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
}

void check_parse(std::span<std::byte const> input, switchyard::FrameLimits const& limits) {
  using namespace switchyard;
  ParsedFrame const parsed = parse_frame(input, limits);
  check((parsed.status == FrameStatus::malformed) == !parsed.problem.empty());
  if (parsed.status != FrameStatus::complete) return;
  check(parsed.bytes >= sizeof(FrameHeader) && parsed.bytes <= input.size());
  check(parsed.frame.key.size() <= limits.key_bytes && parsed.frame.value.size() <= limits.value_bytes);
  check(is_within(std::as_bytes(std::span(parsed.frame.key)), input) && is_within(parsed.frame.value, input));
  check(std::ranges::equal(encode_frame(parsed.frame), input.first(parsed.bytes)));
  // One byte less must never do.
  check(parse_frame(input.first(parsed.bytes - 1), limits).status == FrameStatus::incomplete);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = std::as_bytes(std::span(data, size));
  check_parse(input, {});
  check_parse(input, switchyard::hello_limits);
  return 0;
}
