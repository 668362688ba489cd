// Which rows a rank must receive and which rows a sum takes, from the routing alone.
#pragma once

#include <cstdint>
#include <vector>

#include "oracle/job.hpp"
#include "oracle/problem.hpp"
#include "oracle/routing.hpp"

namespace switchyard::oracle {

// Whether a token has an expert of the range in a slot.
bool has_any(Terms const& terms, JobData const& data, TokenKey const& key, ExpertRange range);
// Whether it goes to `rank`.
bool goes_to(Terms const& terms, JobData const& data, TokenKey const& key, int rank);
// The local expert that a slot shows to `rank`; -1 where it is another rank's.
std::int64_t local_id(Terms const& terms, JobData const& data, TokenKey const& key, int slot, int rank);

// Throughput mode. The rows that `rank` receives, in order: flat by source rank and token; expanded by local
// expert, source rank, token and slot, with rows that pad an expert's to the alignment.
std::vector<Row> received_rows(Terms const& terms, JobData const& data, int rank, int alignment = 1);
// Slots (of all ranks) that name each local expert of `rank`; empty with token_in_rank.
std::vector<std::int64_t> tokens_per_expert(Terms const& terms, JobData const& data, int rank);
// The same, each rounded up to a multiple of the alignment.
std::vector<std::int64_t> padded_tokens_per_expert(Terms const& terms, JobData const& data, int rank,
                                                   int alignment);
// Cumulative rows by source rank, flat layout.
std::vector<std::int64_t> rows_end_by_rank(Terms const& terms, JobData const& data, int rank);

// Low-latency mode. The rows of `source` for the experts of the range, in order: rank_major one of each token that
// has such an expert in a slot, expert_major one of each such slot. Their experts are not filled in.
std::vector<Row> slot_rows(Terms const& terms, JobData const& data, int source, ExpertRange range);

// One expert output that a token's sum takes.
struct Contribution {
  int maker = 0;  // rank
  Row row{};
  float weight = 1;
};
// Those of a token in the order of the sum. Throughput mode: by slot, where a row of the flat layout comes at the
// last of its slots; by rank with token_in_rank.
std::vector<Contribution> contributions(Terms const& terms, JobData const& data, TokenKey const& key);
// Low-latency mode: expert_major by slot, with its weight; rank_major by rank.
std::vector<Contribution> slot_contributions(Terms const& terms, JobData const& data, TokenKey const& key);

// Rows that move, for one rank.
struct Traffic {
  std::int64_t tokens = 0;         // of this rank
  std::int64_t routed_tokens = 0;  // of these, with at least one expert
  std::int64_t sent_rows = 0;      // written by dispatch, pulled by combine
  std::int64_t received_rows = 0;  // received by dispatch, expert outputs of combine
};
// By rank.
std::vector<Traffic> count_traffic(Problem const& problem, RoutingTable const& routing);

}  // namespace switchyard::oracle
