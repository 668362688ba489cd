#include "transport/arrivals.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace switchyard::transport {
namespace {

// What peers send is not an argument of anybody here.
template <typename... Args>
void expect(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw SystemError(fmt::vformat(format, fmt::make_format_args(args...)));
}

}  // namespace

Arrivals::Arrivals(int num_channels, int num_sources, std::size_t max_parked) : max_parked_(max_parked) {
  require(num_channels >= 1 && num_channels <= max_channels, "num_channels: expected 1 to {}, seen {}",
          max_channels, num_channels);
  require(num_sources >= 1 && num_sources <= max_sources, "num_sources: expected 1 to {}, seen {}", max_sources,
          num_sources);
  channels_.resize(static_cast<std::size_t>(num_channels));
  for (Channel& channel : channels_) channel.counts.resize(static_cast<std::size_t>(num_sources));
}

Arrivals::Channel const& Arrivals::at(int channel) const {
  require(channel >= 0 && static_cast<std::size_t>(channel) < channels_.size(),
          "channel: expected 0 to below {}, seen {}", channels_.size(), channel);
  return channels_[static_cast<std::size_t>(channel)];
}

void Arrivals::count_in(Channel& channel, Tag const& tag) {
  ++channel.counts[static_cast<std::size_t>(tag.source)];
  ++channel.total;
}

Arrivals::Taken Arrivals::take(std::uint32_t immediate) {
  Taken taken{.tag = tag_of(immediate)};
  Tag& tag = taken.tag;
  expect(static_cast<std::size_t>(tag.channel) < channels_.size(),
         "channel of an arrival: expected 0 to below {}, seen {}", channels_.size(), tag.channel);
  Channel& channel = channels_[static_cast<std::size_t>(tag.channel)];
  expect(static_cast<std::size_t>(tag.source) < channel.counts.size(),
         "source of an arrival: expected 0 to below {}, seen {}", channel.counts.size(), tag.source);
  tag.epoch = epoch_near(tag.epoch, channel.epoch);
  auto const distance = static_cast<std::int64_t>(tag.epoch - channel.epoch);
  if (distance == 0) {
    count_in(channel, tag);
  } else if (distance < 0) {
    ++channel.late;
    taken.when = When::late;
  } else {
    expect(channel.parked.size() < max_parked_,
           "arrivals of channel {} for later epochs: expected at most {}, seen more", tag.channel, max_parked_);
    channel.parked.push_back(tag);
    taken.when = When::parked;
  }
  return taken;
}

std::vector<Tag> Arrivals::begin(int channel, std::uint64_t epoch) {
  require(epoch > at(channel).epoch, "epoch of channel {}: expected more than {}, seen {}", channel,
          at(channel).epoch, epoch);
  Channel& state = channels_[static_cast<std::size_t>(channel)];
  state.epoch = epoch;
  std::ranges::fill(state.counts, 0);
  state.total = 0;
  std::vector<Tag> now;
  std::erase_if(state.parked, [&](Tag const& tag) {
    if (tag.epoch > epoch) return false;
    if (tag.epoch == epoch) {
      now.push_back(tag);
      count_in(state, tag);
    } else {
      ++state.late;  // for an epoch that was left out
    }
    return true;
  });
  return now;
}

std::uint32_t Arrivals::count(int channel, int source) const {
  Channel const& state = at(channel);
  require(source >= 0 && static_cast<std::size_t>(source) < state.counts.size(),
          "source: expected 0 to below {}, seen {}", state.counts.size(), source);
  return state.counts[static_cast<std::size_t>(source)];
}

std::optional<int> Arrivals::first_missing(int channel, std::span<std::uint32_t const> expected) const {
  Channel const& state = at(channel);
  require(expected.size() == state.counts.size(), "expected: expected {} counts, seen {}", state.counts.size(),
          expected.size());
  std::optional<int> missing;
  for (std::size_t source = 0; source < expected.size(); ++source) {
    std::uint32_t const seen = state.counts[source];
    expect(seen <= expected[source], "source {}, channel {}, epoch {}: expected {} arrivals, seen {}", source,
           channel, state.epoch, expected[source], seen);
    if (seen < expected[source] && !missing) missing = static_cast<int>(source);
  }
  return missing;
}

}  // namespace switchyard::transport
