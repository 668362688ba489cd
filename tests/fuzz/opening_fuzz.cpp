// The reader of letters: what it accepts is a refusal with a short text, or terms and the counts of some routing,
// and encodes to the same bytes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "fuzz/node_input.hpp"
#include "layout/scale_out/opening.hpp"
#include "switchyard/error.hpp"

namespace {

using namespace switchyard;
using namespace switchyard::scale_out;

constexpr TermValues asked{1, 0, 7168, 1, 3};

void check(bool condition) {
  if (!condition) std::abort();
}

void check_reader(Bytes letter, NotifyTerms const& terms, NodeExperts const& node) {
  Opening opening;
  try {
    opening = read_opening(letter, terms, asked, node);
  } catch (InvalidArgument const&) {
    return;
  }
  check(opening.status <= static_cast<std::uint32_t>(ErrorCode::system));
  check(opening.text.size() <= text_bytes && (opening.status != 0 || opening.text.empty()));
  check(!opening.counts || (opening.status == 0 && opening.terms == asked));
  check(!opening.counts || opening.counts->counts.tokens <= terms.max_tokens);
  // Where the terms are others what follows is not looked at.
  if (opening.status == 0 && opening.terms != asked) return;
  std::vector<std::byte> again(most_opening_bytes(node));
  std::size_t const bytes = write_opening(again, fuzzed_epoch, opening);
  check(bytes <= letter.size() && std::ranges::equal(std::span(again).first(bytes), letter.first(bytes)));
}

// The input behind a header that gets past the first checks, in a place of the size that letters have.
std::vector<std::byte> letter_with(Bytes input, NodeExperts const& node, bool refusal) {
  std::vector<std::byte> letter(most_opening_bytes(node));
  Opening const opening{.status = refusal ? 1U : 0U,
                        .terms = asked,
                        .text = "a reason",
                        .counts = refusal ? std::nullopt : std::optional(refusal_to(node))};
  write_opening(letter, fuzzed_epoch, opening);
  std::size_t const from =
      refusal ? offsetof(OpeningHeader, bytes) : sizeof(OpeningHeader) + offsetof(NotifyHeader, digest);
  std::copy_n(input.begin(), std::min(input.size(), letter.size() - from),
              letter.begin() + static_cast<std::ptrdiff_t>(from));
  return letter;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = node_input(data, size);
  if (!input) return 0;
  auto const& [node, terms, choice, rest] = *input;
  int const how = choice % 3;
  auto letter = how == 0 ? std::vector<std::byte>(rest.begin(), rest.end()) : letter_with(rest, node, how == 1);
  letter.shrink_to_fit();
  check_reader(letter, terms, node);
  return 0;
}
