// The readers of chunks, given what no source sends: each is refused, or names only ranks, experts, slots and rows
// that there are, and bytes within it.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "layout/scale_out/chunk_reader.hpp"
#include "layout/scale_out/chunk_writer.hpp"
#include "layout/scale_out/combine_chunk.hpp"
#include "switchyard/error.hpp"

namespace {

using namespace switchyard;
using namespace switchyard::scale_out;

constexpr std::uint64_t epoch = 5;
constexpr std::size_t slot_bytes = 600;

void check(bool condition) {
  if (!condition) std::abort();
}

bool is_within(std::byte const* data, std::size_t bytes, Bytes whole) {
  return data >= whole.data() && data + bytes <= whole.data() + whole.size();
}

// A stream to a node of three ranks with seven experts, and its chunks.
class SentStream {
 public:
  explicit SentStream(DispatchTerms const& terms) : terms_(terms), node_(topology(), experts(), 1) {
    if (terms.top_k == 0) {
      RouteTable routes;
      routes.begin = {0, 2, 3, 4, 6};
      routes.routes = {{.rank = 1}, {.rank = 3}, {.rank = 2}, {.rank = 1}, {.rank = 0}, {.rank = 3}};
      tokens_ = tokens_by_node(routes, topology(), experts())[1];
    } else {
      tokens_ = tokens_by_node(ids(), topology(), experts())[1];
    }
    ChunkWriter writer({terms_, node_, tokens_, terms.weights ? weights() : ConstTensorView{}, epoch});
    while (!writer.done()) {
      std::vector<std::byte> chunk(slot_bytes);
      chunk.resize(writer.begin(chunk));
      while (writer.next_row()) {
      }
      chunks_.push_back(chunk);
    }
  }

  [[nodiscard]] Bytes chunk(std::size_t i) const { return chunks_[i % chunks_.size()]; }

  void check_reader(Bytes chunk) const {
    ChunkReader reader(terms_, node_);
    try {
      reader.read(chunk, {.rank = 9, .epoch = epoch, .counts = tokens_.counts});
    } catch (InvalidArgument const&) {
      check(reader.size() == 0);
      return;
    }
    check(reader.size() > 0 && reader.first() + reader.size() <= tokens_.size());
    for (std::size_t i = 0; i < reader.size(); ++i) check_token(reader.token(i), chunk);
  }

 private:
  static Topology topology() { return Topology(std::array{0, 1, 1, 1}); }
  static ExpertSplit experts() { return {10, 4}; }
  static ConstTensorView ids() {
    static std::array<std::int64_t, 15> const ids{3, 9, 3, -1, 5, 0, 7, 8, 7, 9, 9, 9, 0, 1, 2};
    return {ids.data(), DType::i64, {5, 3}};
  }
  static ConstTensorView weights() {
    static std::array<float, 15> const weights{};
    return {weights.data(), DType::f32, {5, 3}};
  }

  void check_token(ChunkToken const& token, Bytes chunk) const {
    check(token.token >= 0 && token.token < terms_.max_tokens);
    check(is_within(token.x, terms_.row_bytes, chunk) && is_within(token.scales, terms_.scale_bytes, chunk));
    for (ChunkSlot const& slot : token.slots) {
      check(slot.slot >= 0 && slot.slot < terms_.top_k);
      check(slot.expert >= 0 && slot.expert < node_.count());
      check(slot.local_rank >= 0 && slot.local_rank < node_.num_ranks());
      check(node_.first(slot.local_rank) + slot.local_expert == slot.expert);
    }
    for (ChunkRow const& row : token.rows) {
      check(row.local_rank >= 0 && row.local_rank < node_.num_ranks());
      bool const flat = terms_.layout == OutputLayout::flat;
      check(flat || static_cast<std::size_t>(row.slot) < token.slots.size());
      auto const& counts = flat ? tokens_.counts.rows : tokens_.counts.slots;
      int const stream = flat ? row.local_rank : token.slots[static_cast<std::size_t>(row.slot)].expert;
      check(row.row < counts[static_cast<std::size_t>(stream)]);
    }
  }

  DispatchTerms terms_;
  NodeExperts node_;
  NodeTokens tokens_;
  std::vector<std::vector<std::byte>> chunks_;
};

constexpr std::array<std::uint8_t, 5> weights_back{1, 2, 64, 3, 1};

void check_combine(Bytes chunk, bool with_weights) {
  CombineReader reader({.row_bytes = 40,
                        .tokens = weights_back.size(),
                        .weights = with_weights ? std::span(weights_back) : std::span<std::uint8_t const>(),
                        .epoch = epoch});
  try {
    reader.read(chunk, 9);
  } catch (InvalidArgument const&) {
    check(reader.size() == 0);
    return;
  }
  check(reader.first() + reader.size() <= weights_back.size());
  for (std::size_t i = 0; i < reader.size(); ++i) {
    auto const& row = reader.row(i);
    check(is_within(row.x, 40, chunk) && is_within(row.weights.data(), row.weights.size(), chunk));
    check(row.weights.size() == (with_weights ? 4U * weights_back[reader.first() + i] : 0U));
  }
}

std::array<SentStream, 4> const& streams() {
  static std::array<SentStream, 4> const streams{
      SentStream({.top_k = 3, .weights = true, .row_bytes = 100, .scale_bytes = 12, .max_tokens = 5}),
      SentStream({.layout = OutputLayout::expanded, .top_k = 3, .weights = true, .row_bytes = 33, .max_tokens = 5}),
      SentStream(
          {.layout = OutputLayout::expanded, .top_k = 64, .row_bytes = 1, .scale_bytes = 4, .max_tokens = 5}),
      SentStream({.top_k = 0, .row_bytes = 100, .max_tokens = 4})};
  return streams;
}

// The input alone; or with the header of a chunk before it, so that it gets past the first checks; or XORed onto a
// chunk. In memory of its own, whose end AddressSanitizer watches.
std::vector<std::byte> spoiled(Bytes input, Bytes chunk, int how) {
  if (how == 0) return {input.begin(), input.end()};
  if (how == 1) {
    std::vector<std::byte> bytes(chunk.begin(), chunk.begin() + sizeof(ChunkHeader));
    bytes.insert(bytes.end(), input.begin(), input.end());
    bytes.resize(std::max(bytes.size(), chunk.size()));
    return bytes;
  }
  std::vector<std::byte> bytes(chunk.begin(), chunk.end());
  for (std::size_t i = 0; i < std::min(bytes.size(), input.size()); ++i) bytes[i] ^= input[i];
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = std::as_bytes(std::span(data, size));
  if (input.size() < 2) return 0;
  auto const kind = std::to_integer<std::size_t>(input[0]);
  auto const how = std::to_integer<int>(input[1]) % 3;
  SentStream const& stream = streams()[kind % 4];
  auto bytes = spoiled(input.subspan(2), stream.chunk(kind / 4), how);
  bytes.shrink_to_fit();
  stream.check_reader(bytes);
  check_combine(bytes, kind % 2 == 0);
  return 0;
}
