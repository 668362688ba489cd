// Counts what has arrived, by channel and epoch.
//
// A peer that is further may send for the next epoch while this rank is still in the current one, and nothing
// orders writes, so arrivals of every epoch come mixed. Those of later epochs are parked until their epoch begins,
// and counted then; those of earlier ones are late, and count for nothing. How many are expected is for the caller
// to know.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "transport/immediate.hpp"

namespace switchyard::transport {

class Arrivals {
 public:
  // Throws InvalidArgument for more than an immediate has room for. No more than `max_parked` arrivals wait on a
  // channel.
  Arrivals(int num_channels, int num_sources, std::size_t max_parked);

  enum class When : std::uint8_t { current, parked, late };
  struct Taken {
    Tag tag;  // with its whole epoch
    When when = When::current;
  };
  // Takes the immediate of an `arrived` event. Throws SystemError for a channel or source that there is not, or
  // when too many wait.
  Taken take(std::uint32_t immediate);

  // Begins an epoch of a channel, later than the one before (channels are in epoch 0 at first). Counts start from
  // nothing. What was parked for it is counted now and returned, in the order in which it came: as if take() had
  // returned it now.
  std::vector<Tag> begin(int channel, std::uint64_t epoch);

  [[nodiscard]] std::uint64_t epoch(int channel) const { return at(channel).epoch; }
  // Of the channel's epoch: from one source, and from all.
  [[nodiscard]] std::uint32_t count(int channel, int source) const;
  [[nodiscard]] std::uint64_t total(int channel) const { return at(channel).total; }
  // The first source that has not sent as many as expected; none when all have. Throws SystemError if one has sent
  // more.
  [[nodiscard]] std::optional<int> first_missing(int channel, std::span<std::uint32_t const> expected) const;

  [[nodiscard]] std::size_t num_parked(int channel) const { return at(channel).parked.size(); }
  [[nodiscard]] std::uint64_t num_late(int channel) const { return at(channel).late; }

 private:
  struct Channel {
    std::uint64_t epoch = 0;
    std::vector<std::uint32_t> counts;  // by source
    std::uint64_t total = 0;
    std::uint64_t late = 0;
    std::vector<Tag> parked;
  };

  [[nodiscard]] Channel const& at(int channel) const;
  static void count_in(Channel& channel, Tag const& tag);

  std::vector<Channel> channels_;
  std::size_t max_parked_;
};

}  // namespace switchyard::transport
