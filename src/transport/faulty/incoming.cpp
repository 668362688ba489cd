#include "transport/faulty/incoming.hpp"

#include "base/check.hpp"

namespace switchyard::transport::faulty {
namespace {

void expect(bool condition, Part const& part, char const* what) {
  if (!condition) {
    throw SystemError(fmt::format("faulty endpoint {}, write {}: expected {}", part.source, part.sequence, what));
  }
}

}  // namespace

Incoming::Result Incoming::take(Part const& part) {
  auto& source = sources_[static_cast<std::size_t>(part.source)];
  if (!source) source = std::make_unique<Source>();
  Assembly& write = source->writes[static_cast<std::size_t>(part.sequence)];
  auto const kind = static_cast<unsigned>(part.kind);
  if (kind < num_words) {
    expect((write.words_seen >> kind & 1U) == 0, part, "each word once, seen one twice");
    write.words |= std::uint64_t{part.word} << (kind * word_bits);
    write.words_seen |= 1U << kind;
  } else {
    expect(part.kind == PartKind::plain, part, "a part of a write, seen another kind");
  }
  ++write.parts_seen;
  if (write.words_seen != (1U << num_words) - 1U) return {};
  Message const message = message_of(write.words);
  expect(write.parts_seen <= message.parts, part, "no more parts than it has, seen more");
  if (write.parts_seen < message.parts) return {};

  write = {};
  Result result{.arrived = message.immediate};
  std::size_t const half = part.sequence < half_window ? 0 : 1;
  if (++source->finished[half] == half_window) {
    source->finished[half] = 0;
    result.finished_half = static_cast<int>(half);
  }
  return result;
}

}  // namespace switchyard::transport::faulty
