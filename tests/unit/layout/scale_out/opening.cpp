// Letters that open a call: what was written is what is read, by whoever was asked the same or something else; each
// kind of broken byte is refused by its name.
#include "layout/scale_out/opening.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <functional>

#include "support/bad_bytes.hpp"
#include "support/node_job.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

using namespace scale_out;

constexpr std::uint64_t opening_epoch = 9;

// Terms by chance, the extremes among them.
TermValues some_terms(Random& random) {
  TermValues terms{};
  for (std::int64_t& term : terms) {
    term =
        random.one_of({std::int64_t{0}, std::int64_t{1}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::min(),
                       std::numeric_limits<std::int64_t>::max(), static_cast<std::int64_t>(random.bits())});
  }
  return terms;
}

// In a slot of the largest size, of which a letter takes what it needs.
std::vector<std::byte> written(NodeExperts const& node, Opening const& opening) {
  std::vector<std::byte> letter(most_opening_bytes(node), std::byte{0xee});
  EXPECT_LE(write_opening(letter, opening_epoch, opening), letter.size());
  return letter;
}

NotifyTerms opening_terms(NodeJob const& job, int source) {
  return {.source = source, .epoch = opening_epoch, .top_k = job.terms.top_k, .max_tokens = job.terms.max_tokens};
}

template <typename Visit>
void for_each_way(Visit const& visit) {
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    SCOPED_TRACE(seed);
    NodeJob const job = random_node_job(seed);
    Random random(mix(seed, std::uint64_t{21}));
    for (int source = 0; source < std::min(job.num_ranks(), 12); ++source) {
      for (int node = 0; node < job.topology().num_nodes(); ++node) visit(job, source, node, random);
    }
  }
}

TEST(Opening, ComesAsItWasSent) {
  for_each_way([](NodeJob const& job, int source, int node, Random& random) {
    NodeExperts const experts(job.topology(), job.experts(), node);
    NodeCounts const counts = job.tokens_by_node(source)[static_cast<std::size_t>(node)].counts;
    Opening const sent{.terms = some_terms(random),
                       .counts = Notify{.digest = random.bits() | 1U, .counts = counts}};
    Opening const seen = read_opening(written(experts, sent), opening_terms(job, source), sent.terms, experts);
    EXPECT_EQ(seen.status, 0U);
    EXPECT_EQ(seen.terms, sent.terms);
    EXPECT_EQ(seen.text, "");
    ASSERT_TRUE(seen.counts.has_value());
    EXPECT_EQ(seen.counts->digest, sent.counts->digest);
    EXPECT_EQ(seen.counts->counts, counts);
  });
}

// Its counts are of another routing, maybe of an impossible one, and nobody needs them.
TEST(Opening, OfWhoWasAskedSomethingElseHasNoCounts) {
  for_each_way([](NodeJob const& job, int source, int node, Random& random) {
    NodeExperts const experts(job.topology(), job.experts(), node);
    NodeCounts counts = job.tokens_by_node(source)[static_cast<std::size_t>(node)].counts;
    counts.tokens = ~std::uint32_t{0};
    Opening const sent{.terms = some_terms(random), .counts = Notify{.digest = 1, .counts = counts}};
    TermValues mine = sent.terms;
    mine[static_cast<std::size_t>(random.below(num_terms))] ^= 1;
    Opening const seen = read_opening(written(experts, sent), opening_terms(job, source), mine, experts);
    EXPECT_EQ(seen.status, 0U);
    EXPECT_EQ(seen.terms, sent.terms);
    EXPECT_FALSE(seen.counts.has_value());
  });
}

// A node of two ranks with two experts each; top-2, at most 10 tokens.
NodeExperts small_node() {
  return {Topology(std::vector{0, 1, 1}), ExpertSplit(6, 3), 1};
}
NotifyTerms const small_terms{.source = 17, .epoch = opening_epoch, .top_k = 2, .max_tokens = 10};
TermValues const asked_terms{1, 2, 3};
Opening const good{.terms = asked_terms,
                   .counts = Notify{.digest = 5, .counts = {.tokens = 5, .rows = {3, 4}, .slots = {2, 2, 4, 2}}}};

TEST(Opening, WithoutCounts) {
  NodeExperts const node = small_node();
  std::vector<std::byte> letter(most_opening_bytes(node));
  EXPECT_EQ(write_opening(letter, opening_epoch, {.terms = asked_terms}), sizeof(OpeningHeader));
  Opening const seen = read_opening(letter, small_terms, asked_terms, node);
  EXPECT_EQ(seen.status, 0U);
  EXPECT_EQ(seen.terms, asked_terms);
  EXPECT_FALSE(seen.counts.has_value());
}

TEST(Opening, ARefusalHasItsReasonAsFarAsThereIsRoom) {
  NodeExperts const node = small_node();
  for (std::size_t const length :
       {std::size_t{0}, std::size_t{1}, text_bytes - 1, text_bytes, text_bytes + 1, std::size_t{10000}}) {
    for (auto const code : {ErrorCode::invalid_argument, ErrorCode::system}) {
      Opening const sent{
          .status = static_cast<std::uint32_t>(code), .terms = asked_terms, .text = std::string(length, 'x')};
      for (TermValues const& mine : {asked_terms, TermValues{}}) {
        Opening const seen = read_opening(written(node, sent), small_terms, mine, node);
        EXPECT_EQ(seen.status, sent.status);
        EXPECT_EQ(seen.terms, asked_terms);
        EXPECT_EQ(seen.text, sent.text.substr(0, text_bytes));
        EXPECT_FALSE(seen.counts.has_value());
      }
    }
  }
}

// A text of a call that goes well is not sent.
TEST(Opening, OnlyARefusalHasAText) {
  NodeExperts const node = small_node();
  Opening seen =
      read_opening(written(node, {.terms = asked_terms, .text = "nothing"}), small_terms, asked_terms, node);
  EXPECT_EQ(seen.text, "");
}

TEST(Opening, IsNotWrittenPastItsPlace) {
  NodeExperts const node = small_node();
  for (Opening const& opening :
       {good, Opening{.terms = asked_terms}, Opening{.status = 1, .text = std::string(1000, 'y')}}) {
    std::vector<std::byte> place(most_opening_bytes(node), std::byte{0x5a});
    std::size_t const bytes = write_opening(place, opening_epoch, opening);
    ASSERT_LE(bytes, place.size());
    auto const is_untouched = [](std::byte value) { return value == std::byte{0x5a}; };
    EXPECT_TRUE(std::ranges::all_of(std::span(place).subspan(bytes), is_untouched));
    place.resize(bytes - 1);
    EXPECT_THROW((void)write_opening(place, opening_epoch, opening), InvalidArgument);
  }
}

// What a reader says of a letter in which `spoil` has changed something.
std::string error_of(Opening const& sent, std::function<void(std::vector<std::byte>&)> const& spoil) {
  NodeExperts const node = small_node();
  std::vector<std::byte> letter(most_opening_bytes(node));
  letter.resize(write_opening(letter, opening_epoch, sent));
  spoil(letter);
  letter.shrink_to_fit();
  try {
    (void)read_opening(letter, small_terms, asked_terms, node);
  } catch (InvalidArgument const& error) {
    return error.what();
  }
  return "";
}

template <typename T>
void put(std::vector<std::byte>& letter, std::size_t at, T value) {
  store(letter.data() + at, value);
}

TEST(Opening, EveryKindOfBrokenByteIsRefusedWithTheSource) {
  using Letter = std::vector<std::byte>;
  auto const error_of_good = [](auto const& spoil) { return error_of(good, spoil); };
  constexpr std::size_t behind = sizeof(OpeningHeader);
  EXPECT_EQ(error_of_good([](Letter&) {}), "");
  EXPECT_EQ(error_of_good([](Letter& l) { l[0] = std::byte{0}; }),
            "rank 17: letter: expected version 1, seen magic 0x4f4f5700, version 1");
  EXPECT_EQ(error_of_good([](Letter& l) { put<std::uint32_t>(l, offsetof(OpeningHeader, version), 2); }),
            "rank 17: letter: expected version 1, seen magic 0x4f4f5753, version 2");
  EXPECT_EQ(error_of_good([](Letter& l) { put<std::uint64_t>(l, offsetof(OpeningHeader, epoch), 8); }),
            "rank 17: letter: epoch: expected 9, seen 8");
  EXPECT_EQ(
      error_of_good([](Letter& l) { put<std::uint32_t>(l, offsetof(OpeningHeader, status), 77); }),
      "rank 17: letter: status: expected 0.." + std::to_string(static_cast<int>(ErrorCode::system)) + ", seen 77");
  EXPECT_EQ(error_of_good([](Letter& l) { put<std::uint32_t>(l, offsetof(OpeningHeader, bytes), behind - 1); }),
            "rank 17: letter: bytes: expected 144..200, seen 143");
  EXPECT_EQ(error_of_good([](Letter& l) { put<std::uint32_t>(l, offsetof(OpeningHeader, bytes), 201); }),
            "rank 17: letter: bytes: expected 144..200, seen 201");
  EXPECT_EQ(error_of_good([](Letter& l) { put<std::uint32_t>(l, offsetof(OpeningHeader, bytes), ~0U); }),
            "rank 17: letter: bytes: expected 144..200, seen 4294967295");
  EXPECT_EQ(error_of_good([](Letter& l) { put<std::uint32_t>(l, behind + offsetof(NotifyHeader, tokens), 11); }),
            "rank 17: notify: tokens: expected 0..10, seen 11");
  EXPECT_EQ(error_of_good([](Letter& l) { put<std::uint64_t>(l, behind + offsetof(NotifyHeader, epoch), 4); }),
            "rank 17: notify: epoch: expected 9, seen 4");
  EXPECT_EQ(error_of_good([](Letter& l) { l.resize(20); }), "rank 17: letter: expected 144 bytes, seen 20");
}

// A letter place is larger than the longest text, so a refusal may say that its text is longer.
TEST(Opening, ATextThatIsTooLongIsRefused) {
  Opening const refusal{.status = 1, .terms = asked_terms, .text = std::string(text_bytes, 'z')};
  EXPECT_EQ(error_of(refusal,
                     [](std::vector<std::byte>& l) {
                       l.resize(sizeof(OpeningHeader) + text_bytes + 1);
                       put(l, offsetof(OpeningHeader, bytes), static_cast<std::uint32_t>(l.size()));
                     }),
            "rank 17: letter: text: expected at most 384 bytes, seen 385");
}

TEST(Opening, ShorterOnesAreRefused) {
  NodeExperts const node = small_node();
  for (Opening const& opening :
       {good, Opening{.terms = asked_terms}, Opening{.status = 1, .terms = asked_terms, .text = "why"}}) {
    std::vector<std::byte> letter(most_opening_bytes(node));
    letter.resize(write_opening(letter, opening_epoch, opening));
    for_each_truncation(letter, [&](Bytes bytes) {
      EXPECT_THROW((void)read_opening(bytes, small_terms, asked_terms, node), InvalidArgument) << bytes.size();
    });
  }
}

TEST(Opening, FlippedBitsGiveNoNumbersOutOfRange) {
  int refused = 0;
  for_each_way([&](NodeJob const& job, int source, int at, Random& random) {
    NodeExperts const node(job.topology(), job.experts(), at);
    NotifyTerms const terms = opening_terms(job, source);
    NodeCounts const counts = job.tokens_by_node(source)[static_cast<std::size_t>(at)].counts;
    Opening const sent{.terms = asked_terms, .counts = Notify{.digest = 1, .counts = counts}};
    auto const letter = written(node, sent);
    for (int i = 0; i < 10; ++i) {
      with_flipped_bits(letter, random, [&](Bytes bytes) {
        try {
          Opening const seen = read_opening(bytes, terms, asked_terms, node);
          EXPECT_LE(seen.status, static_cast<std::uint32_t>(ErrorCode::system));
          EXPECT_LE(seen.text.size(), text_bytes);
          if (!seen.counts) return;
          EXPECT_EQ(seen.terms, asked_terms);
          EXPECT_LE(seen.counts->counts.tokens, terms.max_tokens);
          EXPECT_EQ(seen.counts->counts.rows.size(), static_cast<std::size_t>(node.num_ranks()));
          EXPECT_EQ(seen.counts->counts.slots.size(), static_cast<std::size_t>(node.count()));
        } catch (InvalidArgument const&) {
          ++refused;
        }
      });
    }
  });
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace switchyard::test
