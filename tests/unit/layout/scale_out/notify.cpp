// Notify messages: what was written is what is read; what no routing can have, or is not whole, is refused.
#include "layout/scale_out/notify.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "support/bad_bytes.hpp"
#include "support/node_job.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

using namespace scale_out;

constexpr std::uint64_t epoch = 9;
constexpr std::uint64_t digest = 0x1234'5678'9abc'def0;

std::vector<std::byte> written(NodeExperts const& node, Notify const& notify) {
  std::vector<std::byte> message(notify_bytes(node));
  write_notify(message, epoch, notify);
  return message;
}

NotifyTerms terms_of(NodeJob const& job, int source) {
  return {.source = source, .epoch = epoch, .top_k = job.terms.top_k, .max_tokens = job.terms.max_tokens};
}

TEST(Notify, ComesAsItWasSent) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    NodeJob const job = random_node_job(seed);
    for (int source = 0; source < std::min(job.num_ranks(), 12); ++source) {
      auto const tokens = job.tokens_by_node(source);
      for (int node = 0; node < job.topology().num_nodes(); ++node) {
        NodeExperts const experts(job.topology(), job.experts(), node);
        NodeCounts const& counts = tokens[static_cast<std::size_t>(node)].counts;
        Notify const seen = read_notify(written(experts, {digest, counts}), terms_of(job, source), experts);
        EXPECT_FALSE(seen.refused());
        EXPECT_EQ(seen.digest, digest);
        EXPECT_EQ(seen.counts, counts);
      }
    }
  }
}

// Numbers of a node of two ranks with two experts each; top-2, at most 10 tokens.
struct SmallNode {
  static NodeExperts experts() {
    std::vector<int> const nodes{0, 1, 1};
    return {Topology(nodes), ExpertSplit(6, 3), 1};
  }

  static std::string error_of(std::function<void(Notify&)> const& spoil, NotifyTerms const& terms) {
    NodeExperts const node = experts();
    Notify notify{digest, {.tokens = 5, .rows = {3, 4}, .slots = {2, 2, 4, 2}}};
    spoil(notify);
    try {
      (void)read_notify(written(node, notify), terms, node);
    } catch (InvalidArgument const& error) {
      return error.what();
    }
    return "";
  }

  static std::string error_of(std::function<void(Notify&)> const& spoil) {
    return error_of(spoil, {.source = 17, .epoch = epoch, .top_k = 2, .max_tokens = 10});
  }
};

TEST(Notify, NumbersThatNoRoutingHasAreRefusedWithTheSource) {
  auto const error_of = [](auto const& spoil) { return SmallNode::error_of(spoil); };
  EXPECT_EQ(error_of([](Notify&) {}), "");
  EXPECT_EQ(error_of([](Notify& n) { n.counts.tokens = 11; }), "rank 17: notify: tokens: expected 0..10, seen 11");
  EXPECT_EQ(error_of([](Notify& n) { n.counts.rows[1] = 6; }),
            "rank 17: notify: rows of local rank 1: expected 0..5, seen 6");
  EXPECT_EQ(error_of([](Notify& n) {
              n.counts.rows = {2, 2};
            }),
            "rank 17: notify: rows of all local ranks: expected at least 5, seen 4");
  EXPECT_EQ(error_of([](Notify& n) { n.counts.slots[2] = 7; }),
            "rank 17: notify: slots of local rank 1: expected 4..8, seen 9");
  EXPECT_EQ(error_of([](Notify& n) { n.counts.slots[2] = 1; }),
            "rank 17: notify: slots of local rank 1: expected 4..8, seen 3");
  EXPECT_EQ(error_of([](Notify& n) { n.counts.slots[0] = 4; }),
            "rank 17: notify: slots: expected at most 10, seen 12");
  EXPECT_EQ(error_of([](Notify& n) { n.counts.slots[1] = 0xffff'ffff; }),
            "rank 17: notify: slots of local rank 0: expected 3..6, seen 4294967297");
}

TEST(Notify, ByRankThereAreNoSlots) {
  NotifyTerms const terms{.source = 17, .epoch = epoch, .top_k = 0, .max_tokens = 10};
  EXPECT_EQ(SmallNode::error_of([](Notify& n) { n.counts.slots = {0, 0, 0, 0}; }, terms), "");
  EXPECT_EQ(SmallNode::error_of(
                [](Notify& n) {
                  n.counts.slots = {0, 0, 1, 0};
                },
                terms),
            "rank 17: notify: slots of local rank 1: expected 0..0, seen 1");
}

TEST(Notify, OfAnotherEpochIsRefused) {
  NotifyTerms const terms{.source = 17, .epoch = epoch + 1, .top_k = 2, .max_tokens = 10};
  EXPECT_EQ(SmallNode::error_of([](Notify&) {}, terms), "rank 17: notify: epoch: expected 10, seen 9");
}

TEST(Notify, ARefusalHasNoTokens) {
  NodeExperts const node = SmallNode::experts();
  NotifyTerms const terms{.source = 17, .epoch = epoch, .top_k = 2, .max_tokens = 10};
  auto message = written(node, refusal_to(node));
  EXPECT_TRUE(read_notify(message, terms, node).refused());
  EXPECT_EQ(SmallNode::error_of([](Notify& n) { n.digest = 0; }),
            "notify: expected no tokens of a refusal, seen 5");
  message[sizeof(NotifyHeader) - 4] = std::byte{1};
  EXPECT_THROW((void)read_notify(message, terms, node), InvalidArgument);
}

TEST(Notify, OtherSizesAreRefused) {
  NodeExperts const node = SmallNode::experts();
  NotifyTerms const terms{.source = 17, .epoch = epoch, .top_k = 2, .max_tokens = 10};
  auto message = written(node, refusal_to(node));
  for_each_truncation(message,
                      [&](Bytes bytes) { EXPECT_THROW((void)read_notify(bytes, terms, node), InvalidArgument); });
  message.push_back(std::byte{});
  EXPECT_THROW((void)read_notify(message, terms, node), InvalidArgument);
  EXPECT_THROW(write_notify(message, epoch, refusal_to(node)), InvalidArgument);
}

// What is read after any change lies within what a routing can have.
void expect_possible(Notify const& notify, NotifyTerms const& terms) {
  auto const tokens = notify.counts.tokens;
  EXPECT_LE(tokens, terms.max_tokens);
  for (std::uint32_t const rows : notify.counts.rows) EXPECT_LE(rows, tokens);
  std::uint64_t const slots =
      std::accumulate(notify.counts.slots.begin(), notify.counts.slots.end(), std::uint64_t{0});
  EXPECT_LE(slots, std::uint64_t{tokens} * static_cast<std::uint64_t>(terms.top_k));
}

TEST(Notify, FlippedBitsGiveNoNumbersOutOfRange) {
  int refused = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    NodeJob const job = random_node_job(seed);
    Random random(mix(seed, std::uint64_t{8}));
    NodeExperts const node(job.topology(), job.experts(), 0);
    NotifyTerms const terms = terms_of(job, 0);
    auto const message = written(node, {digest, job.tokens_by_node(0)[0].counts});
    for (int i = 0; i < 200; ++i) {
      with_flipped_bits(message, random, [&](Bytes bytes) {
        try {
          expect_possible(read_notify(bytes, terms, node), terms);
        } catch (InvalidArgument const&) {
          ++refused;
        }
      });
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace switchyard::test
