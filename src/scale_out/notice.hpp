// What a rank tells its neighbours besides: that it waits for somebody, or why it makes no further calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "switchyard/error.hpp"

namespace switchyard::scale_out {

struct Notice {
  enum class Kind : std::uint32_t { held_up = 1, failed };
  Kind kind = Kind::held_up;
  std::uint64_t epoch = 0;
  int from = -1;  // of one that was heard: number of the neighbour that said it; it does not travel
  ErrorCode code = ErrorCode::timeout;
  int rank = -1;  // held_up: who is waited for; failed: whose error it is
  int peer = -1;
  std::string phase{};  // cut to fit, as text is
  std::string text{};
};

// As it travels. `room` has notice_bytes (port_layout.hpp).
void write_notice(Notice const& notice, std::span<std::byte> room);
// Nothing where the bytes are no notice of a job of so many ranks.
std::optional<Notice> read_notice(std::span<std::byte const> bytes, int num_ranks);

}  // namespace switchyard::scale_out
