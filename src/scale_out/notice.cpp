#include "scale_out/notice.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "base/check.hpp"
#include "scale_out/port_layout.hpp"

namespace switchyard::scale_out {

namespace {

constexpr std::uint32_t magic = 0x4e4f'5753;  // "SWON"

// Its bytes are sent as they lie, little-endian. Texts end with a 0, or fill their array.
struct WireNotice {
  std::uint32_t magic;
  std::uint32_t kind;
  std::uint64_t epoch;
  std::uint32_t code;
  std::int32_t rank;
  std::int32_t peer;
  std::array<char, 68> phase;
  std::array<char, 416> text;
};
static_assert(std::has_unique_object_representations_v<WireNotice>, "padding would travel along");
static_assert(sizeof(WireNotice) == notice_bytes);

// A character of several bytes is kept or left out as a whole.
template <std::size_t Size>
void put_text(std::array<char, Size>& into, std::string_view text) {
  std::size_t length = std::min(text.size(), Size);
  auto const continues = [&](std::size_t at) { return (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U; };
  while (length > 0 && length < text.size() && continues(length)) --length;
  std::ranges::copy(text.substr(0, length), into.begin());
}

template <std::size_t Size>
std::string text_in(std::array<char, Size> const& from) {
  return {from.data(), static_cast<std::size_t>(std::ranges::find(from, '\0') - from.begin())};
}

bool is_rank(std::int32_t rank, int num_ranks) {
  return rank >= -1 && rank < num_ranks;
}

bool is_code(std::uint32_t code) {
  return code >= static_cast<std::uint32_t>(ErrorCode::invalid_argument) &&
         code <= static_cast<std::uint32_t>(ErrorCode::system);
}

}  // namespace

void write_notice(Notice const& notice, std::span<std::byte> room) {
  require(room.size() == sizeof(WireNotice), "room for a notice: expected {} bytes, seen {}", sizeof(WireNotice),
          room.size());
  WireNotice wire{.magic = magic,
                  .kind = static_cast<std::uint32_t>(notice.kind),
                  .epoch = notice.epoch,
                  .code = static_cast<std::uint32_t>(notice.code),
                  .rank = notice.rank,
                  .peer = notice.peer,
                  .phase = {},
                  .text = {}};
  put_text(wire.phase, notice.phase);
  put_text(wire.text, notice.text);
  std::memcpy(room.data(), &wire, sizeof wire);
}

std::optional<Notice> read_notice(std::span<std::byte const> bytes, int num_ranks) {
  WireNotice wire{};
  if (bytes.size() != sizeof wire) return std::nullopt;
  std::memcpy(&wire, bytes.data(), sizeof wire);
  auto const kind = static_cast<Notice::Kind>(wire.kind);
  bool const known = kind == Notice::Kind::held_up || kind == Notice::Kind::failed;
  if (wire.magic != magic || !known || !is_code(wire.code)) return std::nullopt;
  if (!is_rank(wire.rank, num_ranks) || !is_rank(wire.peer, num_ranks)) return std::nullopt;
  return Notice{.kind = kind,
                .epoch = wire.epoch,
                .code = static_cast<ErrorCode>(wire.code),
                .rank = wire.rank,
                .peer = wire.peer,
                .phase = text_in(wire.phase),
                .text = text_in(wire.text)};
}

}  // namespace switchyard::scale_out
