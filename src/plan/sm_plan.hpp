// Chooses how many SMs of a GPU a rank's calls take, by a model of how long they need. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard {

// Bytes per second, from data sheets.
struct GpuRates {
  double memory = 0;
  double link = 0;  // one way, to the other GPUs; 0: no limit, as when all ranks share one GPU
};

// `memory_bytes` is that of the whole GPU: boards of one compute capability differ in it.
GpuRates gpu_rates(int major, int minor, std::size_t memory_bytes);

struct SmProblem {
  int sms = 1;            // of the GPU
  int ranks_per_gpu = 1;  // ranks that share the GPU
  int num_ranks = 1;
  GpuRates rates;
  std::int64_t row_bytes = 0;
  std::int64_t max_tokens = 0;
  int top_k = 1;
  int num_experts = 1;
};

// How long whole calls take, in seconds.
struct CallTimes {
  double dispatch = 0;
  double combine = 0;
};

// How many ranks a token goes to on average, when its top_k experts are drawn at random without repetition.
double ranks_per_token(int num_ranks, int top_k, int num_experts);

// The most SMs that a rank can take: all blocks of all ranks wait for one another, so they must fit on the GPU
// together.
int most_sms(SmProblem const& problem);

// How long calls take when each rank dispatches, or combines, max_tokens.
CallTimes call_times(SmProblem const& problem, int num_sms);

// The SMs that a rank takes by default: the fewest that bring both calls to 95 % of the throughput that the most
// would.
int default_sms(SmProblem const& problem);

}  // namespace switchyard
