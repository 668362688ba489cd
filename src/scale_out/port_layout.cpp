#include "scale_out/port_layout.hpp"

#include "base/check.hpp"
#include "transport/immediate.hpp"

namespace switchyard::scale_out {

namespace {

// Two cache lines, which processors fetch together.
constexpr std::size_t alignment = 128;
// So that no sum below overflows; no machine has as much.
constexpr std::size_t most_bytes = std::size_t{1} << 40U;
constexpr int most_send_slots = 1 << 16;

constexpr std::size_t stride_of(std::size_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

void check(PortSizes const& sizes, int num_neighbours) {
  require(num_neighbours >= 1 && num_neighbours <= transport::max_sources,
          "rail neighbours of a rank: expected 1..{}, seen {}", transport::max_sources, num_neighbours);
  require(sizes.letter_bytes <= most_bytes, "PortSizes::letter_bytes: expected at most {}, seen {}", most_bytes,
          sizes.letter_bytes);
  require(sizes.slot_bytes <= most_bytes, "PortSizes::slot_bytes: expected at most {}, seen {}", most_bytes,
          sizes.slot_bytes);
  require(sizes.slots >= 0 && sizes.slots <= transport::max_slots, "PortSizes::slots: expected 0..{}, seen {}",
          transport::max_slots, sizes.slots);
  require(sizes.send_slots >= 0 && sizes.send_slots <= most_send_slots,
          "PortSizes::send_slots: expected 0..{}, seen {}", most_send_slots, sizes.send_slots);
}

}  // namespace

PortLayout::PortLayout(PortSizes const& sizes, int num_neighbours) {
  check(sizes, num_neighbours);
  letters_in_ = next(sizes.letter_bytes, num_neighbours, letter_places);
  notices_in_ = next(notice_bytes, num_neighbours, notice_places);
  chunks_in_ = next(sizes.slot_bytes, num_neighbours, sizes.slots);
  letters_out_ = next(sizes.letter_bytes, num_neighbours, letter_places);
  notices_out_ = next(notice_bytes, num_neighbours, notice_places);
  chunks_out_ = next(sizes.slot_bytes, 1, sizes.send_slots);
}

PortLayout::Section PortLayout::next(std::size_t bytes, int neighbours, int places) {
  Section const section{.offset = end_, .bytes = bytes, .neighbours = neighbours, .places = places};
  end_ += stride_of(bytes) * static_cast<std::size_t>(neighbours) * static_cast<std::size_t>(places);
  return section;
}

Place PortLayout::at(Section const& section, int neighbour, int place) {
  require(neighbour >= 0 && neighbour < section.neighbours, "neighbour: expected 0 to below {}, seen {}",
          section.neighbours, neighbour);
  require(place >= 0 && place < section.places, "slot: expected 0 to below {}, seen {}", section.places, place);
  auto const number = static_cast<std::size_t>(neighbour) * static_cast<std::size_t>(section.places) +
                      static_cast<std::size_t>(place);
  return {section.offset + number * stride_of(section.bytes), section.bytes};
}

Place PortLayout::letter_in(int neighbour, int place) const {
  return at(letters_in_, neighbour, place);
}
Place PortLayout::chunk_in(int neighbour, int slot) const {
  return at(chunks_in_, neighbour, slot);
}
Place PortLayout::notice_in(int neighbour, int place) const {
  return at(notices_in_, neighbour, place);
}
Place PortLayout::letter_out(int neighbour, int place) const {
  return at(letters_out_, neighbour, place);
}
Place PortLayout::chunk_out(int send_slot) const {
  return at(chunks_out_, 0, send_slot);
}
Place PortLayout::notice_out(int neighbour, int place) const {
  return at(notices_out_, neighbour, place);
}

}  // namespace switchyard::scale_out
