// The reader of headers of the low-latency mode, given what no rank sends: each is refused, or lies within its
// chunk and within what a call may have.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "layout/scale_out/slot_chunk.hpp"
#include "switchyard/error.hpp"

namespace {

using namespace switchyard;
using namespace switchyard::scale_out;

constexpr SlotChunkTerms terms{.rank = 3, .frames = 4, .max_tokens = 50, .top_k = 8};

void check(bool condition) {
  if (!condition) std::abort();
}

void check_chunk(Bytes chunk) {
  try {
    SlotChunkHeader const header = read_slot_header(chunk, terms);
    check(header.bytes <= chunk.size() && header.frame < 4);
    check(header.stream <= 400 && header.first + header.count <= header.stream);
    std::vector<float> weights(header.stream);
    read_weights(chunk.first(header.bytes), header, weights);
  } catch (InvalidArgument const&) {
    return;
  }
}

}  // namespace

// The input alone, or XORed onto a good chunk, so that it gets past the first checks.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = std::as_bytes(std::span(data, size));
  std::vector<std::byte> const alone(input.begin(), input.end());
  check_chunk(alone);
  std::vector<std::byte> good(200);
  store(good.data(), SlotChunkHeader{.magic = slot_chunk_magic,
                                     .kind = SlotChunkKind::asks,
                                     .epoch = 1,
                                     .bytes = sizeof(SlotChunkHeader) + 40,
                                     .stream = 20,
                                     .first = 10,
                                     .count = 10});
  for (std::size_t i = 0; i < std::min(good.size(), input.size()); ++i) good[i] ^= input[i];
  check_chunk(good);
  return 0;
}
