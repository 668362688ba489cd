// How a call opens in a job of several nodes: whatever ranks refuse or were asked, every rank of the job throws the
// same error, or none does. All nodes are here as threads; what letters bring from other nodes is laid where a
// port's owner lays it.
#include "control/announce.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bootstrap/in_process_store.hpp"
#include "support/meeting.hpp"
#include "support/plain_segment.hpp"
#include "support/random.hpp"

namespace switchyard::test {
namespace {

// What each rank of the job was asked in one call, or why it refuses.
struct Asked {
  std::vector<CallTerms> terms;
  std::vector<std::optional<Refusal>> refusals;
};

// How a rank came out of a call.
struct Ending {
  int code = 0;  // 0: it goes on
  int rank = -1;
  std::string text;

  friend bool operator==(Ending const&, Ending const&) = default;
  friend std::ostream& operator<<(std::ostream& out, Ending const& ending) {
    return out << "{code " << ending.code << ", rank " << ending.rank << ": " << ending.text << "}";
  }
};

// One rank of one node.
class RankOfNode {
 public:
  RankOfNode(NodeInJob const& job, int local, std::vector<std::shared_ptr<Segment>> const& segments, Store& store)
      : job_(job),
        local_(local),
        layout_(layout_of(job)),
        heap_(std::make_shared<SymmetricHeap>(segments, local, layout_.bytes)),
        node_(std::make_shared<Node>(store, members(job), local, plenty)),
        control_(heap_, layout_),
        signals_(heap_, node_, {.timeout = plenty, .yields = true}) {}

  static ControlLayout layout_of(NodeInJob const& job) {
    return control_layout(job.topology().num_ranks_of(job.node()), 1, job.served().most());
  }

  Ending open(std::uint64_t epoch, Asked const& asked) {
    auto const self = static_cast<std::size_t>(job_.rank_of(local_));
    Link const link{control_, signals_, local_, job_.topology().num_ranks_of(job_.node()), job_};
    try {
      open_call(link, {.epoch = epoch,
                       .phase = "a call",
                       .terms = asked.terms[self],
                       .refusal = asked.refusals[self],
                       .trouble = pass_on(epoch, asked)});
    } catch (Error const& error) {
      return {static_cast<int>(error.code()), error.rank(), error.what()};
    }
    return {};
  }

  void barrier() { node_->barrier(); }

 private:
  static NodeMembers members(NodeInJob const& job) {
    NodeMembers all{.ranks = {}, .key = "node/" + std::to_string(job.node())};
    for (int const rank : job.topology().ranks_of(job.node()))
      all.ranks.push_back({.rank = rank, .node = job.node()});
    return all;
  }

  // Where something is wrong with any rank that this one serves.
  bool pass_on(std::uint64_t epoch, Asked const& asked) {
    auto const others = job_.served().of(local_).subspan(1);
    auto const& mine = asked.terms[static_cast<std::size_t>(job_.rank_of(local_))].values;
    bool const trouble = std::ranges::any_of(others, [&](int rank) {
      auto const r = static_cast<std::size_t>(rank);
      return asked.refusals[r] || asked.terms[r].values != mine;
    });
    for (std::size_t i = 0; trouble && i < others.size(); ++i) {
      auto const r = static_cast<std::size_t>(others[i]);
      PassedOn& to = control_.passed_on(local_, static_cast<int>(i) + 1, epoch);
      to.status = asked.refusals[r] ? static_cast<std::uint32_t>(asked.refusals[r]->code) : 0;
      std::memcpy(to.terms, asked.terms[r].values.data(), sizeof to.terms);
      put_text(to.text, sizeof to.text, asked.refusals[r] ? asked.refusals[r]->text : "");
    }
    return trouble;
  }

  NodeInJob const& job_;
  int local_;
  ControlLayout layout_;
  std::shared_ptr<SymmetricHeap> heap_;
  std::shared_ptr<Node> node_;
  ControlArea control_;
  Signals signals_;
};

// All ranks of a job make the calls one after the other; returns the endings by call, then by rank.
std::vector<std::vector<Ending>> run(std::vector<int> const& nodes, std::vector<Asked> const& calls) {
  Topology const topology(nodes);
  std::vector<NodeInJob> in_job;
  std::vector<std::vector<std::shared_ptr<Segment>>> segments;
  for (int node = 0; node < topology.num_nodes(); ++node) {
    in_job.emplace_back(topology, node);
    auto& all = segments.emplace_back();
    for (int local = 0; local < topology.num_ranks_of(node); ++local)
      all.push_back(std::make_shared<PlainSegment>(RankOfNode::layout_of(in_job.back()).bytes + page_bytes));
  }
  std::vector<std::vector<Ending>> endings(calls.size(), std::vector<Ending>(nodes.size()));
  InProcessStore store;
  run_threads(static_cast<int>(nodes.size()), [&](int rank) {
    auto const node = static_cast<std::size_t>(topology.node_of(rank));
    RankOfNode self(in_job[node], topology.local_rank_of(rank), segments[node], store);
    for (std::size_t call = 0; call < calls.size(); ++call)
      endings[call][static_cast<std::size_t>(rank)] = self.open(call + 1, calls[call]);
    self.barrier();
  });
  return endings;
}

CallTerms usual_terms() {
  CallTerms terms;
  terms[Term::operation] = 1;
  terms[Term::hidden] = 7168;
  terms[Term::top_k] = 8;
  return terms;
}

Asked usual(std::size_t ranks) {
  return {.terms = std::vector(ranks, usual_terms()), .refusals = std::vector<std::optional<Refusal>>(ranks)};
}

// The definition, with the two terms that these tests change.
Ending expected(Asked const& asked) {
  for (std::size_t rank = 0; rank < asked.refusals.size(); ++rank) {
    if (auto const& refusal = asked.refusals[rank])
      return {static_cast<int>(refusal->code), static_cast<int>(rank),
              "rank " + std::to_string(rank) + ": " + refusal->text};
  }
  for (std::size_t rank = 1; rank < asked.terms.size(); ++rank) {
    for (auto const& [term, name] :
         {std::pair{Term::hidden, "x: dimension 1"}, {Term::top_k, "topk_idx: dimension 1"}}) {
      std::int64_t const first = asked.terms[0].values[static_cast<std::size_t>(term)];
      std::int64_t const seen = asked.terms[rank].values[static_cast<std::size_t>(term)];
      if (first == seen) continue;
      return {static_cast<int>(ErrorCode::invalid_argument), static_cast<int>(rank),
              "rank " + std::to_string(rank) + ": " + name + ": expected " + std::to_string(first) +
                  " as on rank 0, seen " + std::to_string(seen)};
    }
  }
  return {};
}

void check(std::vector<int> const& nodes, std::vector<Asked> const& calls) {
  auto const endings = run(nodes, calls);
  for (std::size_t call = 0; call < calls.size(); ++call) {
    for (std::size_t rank = 0; rank < nodes.size(); ++rank)
      EXPECT_EQ(endings[call][rank], expected(calls[call])) << "call " << call << ", rank " << rank;
  }
}

std::vector<std::vector<int>> const shapes{{0, 1},          {0, 0, 1, 1}, {0, 1, 0, 1},      {0, 0, 0, 1},
                                           {0, 1, 1, 0, 2}, {0, 1, 2, 3}, {1, 1, 0, 2, 2, 2}};

// One rank after the other, and calls that go well in between.
TEST(AnnounceOverNodes, ARefusalIsNamedAlikeOnEveryRank) {
  for (std::vector<int> const& nodes : shapes) {
    SCOPED_TRACE(testing::PrintToString(nodes));
    std::vector<Asked> calls;
    for (std::size_t rank = 0; rank < nodes.size(); ++rank) {
      Asked& call = calls.emplace_back(usual(nodes.size()));
      call.refusals[rank] = Refusal{ErrorCode::out_of_memory, "no room for " + std::to_string(rank)};
      calls.push_back(usual(nodes.size()));
    }
    check(nodes, calls);
  }
}

TEST(AnnounceOverNodes, ADifferenceIsNamedAlikeOnEveryRank) {
  for (std::vector<int> const& nodes : shapes) {
    SCOPED_TRACE(testing::PrintToString(nodes));
    std::vector<Asked> calls;
    for (std::size_t rank = 0; rank < nodes.size(); ++rank) {
      Asked& call = calls.emplace_back(usual(nodes.size()));
      call.terms[rank][Term::hidden] = 64;
      calls.push_back(usual(nodes.size()));
    }
    check(nodes, calls);
  }
}

// Refusals and differences of any ranks at once, call after call, so that places of both parities are used again.
TEST(AnnounceOverNodes, AnythingAtOnce) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    Random random(mix(seed, std::uint64_t{31}));
    std::vector<int> const& nodes =
        shapes[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(shapes.size())))];
    SCOPED_TRACE(testing::Message() << "seed " << seed << ", nodes " << testing::PrintToString(nodes));
    std::vector<Asked> calls;
    for (int i = 0; i < 30; ++i) {
      Asked& call = calls.emplace_back(usual(nodes.size()));
      int const refuses = random.one_of({0, 0, 10, 50});
      int const differs = random.one_of({0, 0, 10, 50, 100});
      for (std::size_t rank = 0; rank < nodes.size(); ++rank) {
        if (random.chance(refuses))
          call.refusals[rank] = Refusal{random.one_of({ErrorCode::invalid_argument, ErrorCode::out_of_memory}),
                                        "call " + std::to_string(i)};
        if (random.chance(differs)) call.terms[rank][Term::hidden] = random.between(1, 2);
        if (random.chance(differs)) call.terms[rank][Term::top_k] = random.between(1, 2);
      }
    }
    check(nodes, calls);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace switchyard::test
