#include "layout/scale_out/opening.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "switchyard/error.hpp"

namespace switchyard::scale_out {

namespace {

constexpr std::uint32_t opening_magic = 0x4f4f'5753;  // "SWOO", little-endian
constexpr std::uint32_t opening_version = 1;

std::size_t length_of(Opening const& opening, std::size_t counts) {
  std::size_t const text = opening.status != 0 ? std::min(opening.text.size(), text_bytes) : 0;
  return sizeof(OpeningHeader) + (opening.counts ? counts : 0) + text;
}

void check_header(OpeningHeader const& header, NotifyTerms const& terms, std::size_t room) {
  require(header.magic == opening_magic && header.version == opening_version,
          "rank {}: letter: expected version {}, seen magic {:#x}, version {}", terms.source, opening_version,
          header.magic, header.version);
  require(header.epoch == terms.epoch, "rank {}: letter: epoch: expected {}, seen {}", terms.source, terms.epoch,
          header.epoch);
  require(header.bytes >= sizeof header && header.bytes <= room, "rank {}: letter: bytes: expected {}..{}, seen {}",
          terms.source, sizeof header, room, header.bytes);
  require(header.status <= static_cast<std::uint32_t>(ErrorCode::system),
          "rank {}: letter: status: expected 0..{}, seen {}", terms.source,
          static_cast<std::uint32_t>(ErrorCode::system), header.status);
}

}  // namespace

std::size_t most_opening_bytes(NodeExperts const& node) {
  return sizeof(OpeningHeader) + std::max(notify_bytes(node), text_bytes);
}

std::size_t write_opening(std::span<std::byte> to, std::uint64_t epoch, Opening const& opening) {
  std::size_t const counts =
      opening.counts
          ? (opening.counts->counts.rows.size() + opening.counts->counts.slots.size()) * sizeof(std::uint32_t) +
                sizeof(NotifyHeader)
          : 0;
  std::size_t const bytes = length_of(opening, counts);
  require(to.size() >= bytes, "letter: expected room for {} bytes, seen {}", bytes, to.size());
  store(to.data(), OpeningHeader{.magic = opening_magic,
                                 .version = opening_version,
                                 .epoch = epoch,
                                 .status = opening.status,
                                 .bytes = static_cast<std::uint32_t>(bytes),
                                 .terms = opening.terms});
  auto const rest = to.subspan(sizeof(OpeningHeader));
  if (opening.counts) write_notify(rest.first(counts), epoch, *opening.counts);
  if (opening.status != 0)
    std::memcpy(rest.data() + counts, opening.text.data(), bytes - sizeof(OpeningHeader) - counts);
  return bytes;
}

Opening read_opening(Bytes letter, NotifyTerms const& terms, TermValues const& mine, NodeExperts const& node) {
  require(letter.size() >= sizeof(OpeningHeader), "rank {}: letter: expected {} bytes, seen {}", terms.source,
          sizeof(OpeningHeader), letter.size());
  // Read once, so that what is checked is what is used.
  auto const header = load<OpeningHeader>(letter.data());
  check_header(header, terms, letter.size());
  Bytes const rest = letter.subspan(sizeof header, header.bytes - sizeof header);
  Opening opening{.status = header.status, .terms = header.terms};
  if (header.status != 0) {
    require(rest.size() <= text_bytes, "rank {}: letter: text: expected at most {} bytes, seen {}", terms.source,
            text_bytes, rest.size());
    opening.text.assign(reinterpret_cast<char const*>(rest.data()), rest.size());
  } else if (!rest.empty() && header.terms == mine) {
    opening.counts = read_notify(rest, terms, node);
  }
  return opening;
}

}  // namespace switchyard::scale_out
