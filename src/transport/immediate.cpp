#include "transport/immediate.hpp"

#include "base/check.hpp"

namespace switchyard::transport {

void refuse(Tag const& tag) {
  throw InvalidArgument(
      fmt::format("Tag: expected channel, source and slot below {}, {} and {}, seen {}, {} and {}", max_channels,
                  max_sources, max_slots, tag.channel, tag.source, tag.slot));
}

}  // namespace switchyard::transport
