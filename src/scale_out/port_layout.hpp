// Where everything lies in the memory that a port registers. A rank computes it for its neighbours, too, to know
// where to write there.
#pragma once

#include <cstddef>

#include "scale_out/port_sizes.hpp"

namespace switchyard::scale_out {

// Notices to each neighbour that it has not read yet: the last place is kept for that of a failure.
inline constexpr int notice_places = 3;
inline constexpr std::size_t notice_bytes = 512;

struct Place {
  std::size_t offset = 0;
  std::size_t bytes = 0;
};

// Letters of so many epochs have places of their own. A call has two epochs, and while one rank opens a call
// another may not have read the letters of the one before.
inline constexpr int letter_places = 4;

class PortLayout {
 public:
  // Of a rank that has so many neighbours. Throws InvalidArgument for more than tags can name.
  PortLayout(PortSizes const& sizes, int num_neighbours);

  // What peers write, and nothing else.
  [[nodiscard]] Place letter_in(int neighbour, int place) const;
  [[nodiscard]] Place chunk_in(int neighbour, int slot) const;
  [[nodiscard]] Place notice_in(int neighbour, int place) const;
  // What this rank writes from.
  [[nodiscard]] Place letter_out(int neighbour, int place) const;
  [[nodiscard]] Place chunk_out(int send_slot) const;
  [[nodiscard]] Place notice_out(int neighbour, int place) const;

  [[nodiscard]] std::size_t bytes() const noexcept { return end_; }

 private:
  // So many places for each neighbour, one behind the other.
  struct Section {
    std::size_t offset = 0;
    std::size_t bytes = 0;  // of a place
    int neighbours = 0;
    int places = 0;  // of each
  };
  Section next(std::size_t bytes, int neighbours, int places);
  static Place at(Section const& section, int neighbour, int place);

  std::size_t end_ = 0;  // first: next() counts it on
  Section letters_in_;
  Section chunks_in_;
  Section notices_in_;
  Section letters_out_;
  Section chunks_out_;
  Section notices_out_;
};

}  // namespace switchyard::scale_out
