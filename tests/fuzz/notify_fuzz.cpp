// The reader of notify messages: what it accepts are the counts of some routing, and encodes to the same bytes.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "fuzz/node_input.hpp"
#include "layout/scale_out/notify.hpp"
#include "switchyard/error.hpp"

namespace {

using namespace switchyard;
using namespace switchyard::scale_out;

void check(bool condition) {
  if (!condition) std::abort();
}

void check_reader(Bytes message, NotifyTerms const& terms, NodeExperts const& node) {
  Notify notify;
  try {
    notify = read_notify(message, terms, node);
  } catch (InvalidArgument const&) {
    return;
  }
  NodeCounts const& counts = notify.counts;
  check(counts.tokens <= (notify.refused() ? 0 : terms.max_tokens));
  check(std::ranges::all_of(counts.rows, [&](std::uint32_t rows) { return rows <= counts.tokens; }));
  auto const slots = std::accumulate(counts.slots.begin(), counts.slots.end(), std::uint64_t{0});
  check(slots <= std::uint64_t{counts.tokens} * static_cast<std::uint64_t>(terms.top_k));
  std::vector<std::byte> again(notify_bytes(node));
  write_notify(again, fuzzed_epoch, notify);
  check(std::ranges::equal(again, message));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = node_input(data, size);
  if (!input) return 0;
  auto const& [node, terms, choice, rest] = *input;
  std::vector<std::byte> message(rest.begin(), rest.end());
  if (choice % 2 == 0) {  // past the checks of the header
    message.resize(notify_bytes(node));
    std::vector<std::byte> valid(notify_bytes(node));
    Notify opened = refusal_to(node);
    opened.digest = 1;
    write_notify(valid, fuzzed_epoch, opened);
    std::copy(valid.begin(), valid.begin() + offsetof(NotifyHeader, tokens), message.begin());
  }
  message.shrink_to_fit();
  check_reader(message, terms, node);
  return 0;
}
