#include "plan/sm_plan.hpp"

#include <algorithm>
#include <cmath>

#include "layout/experts.hpp"
#include "plan/sm_figures.hpp"

namespace switchyard {

namespace {

// The chance that none of `drawn` of `all` experts is one of `mine`.
double chance_of_none(int mine, int drawn, int all) {
  double chance = 1;
  for (int i = 0; i < drawn; ++i) chance *= static_cast<double>(std::max(all - mine - i, 0)) / (all - i);
  return chance;
}

// What a rank moves in one call.
struct Work {
  double tokens = 0;
  double pieces = 0;
  double bytes = 0;  // read plus written: a row of each token on the one side, a row for each rank on the other
  double bytes_abroad = 0;  // what passes the link
};

Work work_of(SmProblem const& problem) {
  auto const tokens = static_cast<double>(problem.max_tokens);
  double const row = static_cast<double>(problem.row_bytes);
  double const ranks = ranks_per_token(problem.num_ranks, problem.top_k, problem.num_experts);
  double const abroad = static_cast<double>(problem.num_ranks - problem.ranks_per_gpu) / problem.num_ranks;
  return {.tokens = tokens,
          .pieces = tokens * row / figures::piece_bytes,
          .bytes = tokens * (1 + ranks) * row,
          .bytes_abroad = tokens * ranks * abroad * row};
}

double call_time(SmProblem const& problem, figures::CallFigures const& call, int num_sms) {
  Work const work = work_of(problem);
  double const sharers = problem.ranks_per_gpu;
  double const busy = std::max(std::min<double>(num_sms, work.tokens), 1.0);  // a token is one block's
  double const by_sms = (work.bytes / call.sm_rate + work.pieces * call.piece_seconds) / busy;
  double const by_memory = sharers * work.bytes / (problem.rates.memory * call.memory_share);
  double const link = problem.rates.link * call.link_share;
  double const by_link = link > 0 ? sharers * work.bytes_abroad / link : 0;
  double const shared = std::max(by_memory, by_link);
  double const moving =
      std::pow(std::pow(by_sms, figures::sharpness) + std::pow(shared, figures::sharpness), 1 / figures::sharpness);
  return call.fixed_seconds + call.fixed_seconds_per_sharer * sharers + moving;
}

bool good_enough(CallTimes const& times, CallTimes const& best) {
  return best.dispatch >= figures::good_enough * times.dispatch &&
         best.combine >= figures::good_enough * times.combine;
}

}  // namespace

GpuRates gpu_rates(int major, int minor, std::size_t memory_bytes) {
  figures::GpuFigures const* found = &figures::gpus[0];
  for (auto const& gpu : figures::gpus) {
    if (gpu.capability <= 10 * major + minor && gpu.memory_bytes <= memory_bytes) found = &gpu;
  }
  return {.memory = found->memory, .link = found->link};
}

double ranks_per_token(int num_ranks, int top_k, int num_experts) {
  ExpertSplit const experts(num_experts, num_ranks);
  int const drawn = std::min(top_k, num_experts);
  double ranks = 0;
  for (int rank = 0; rank < num_ranks; ++rank) ranks += 1 - chance_of_none(experts.count(rank), drawn, num_experts);
  return ranks;
}

int most_sms(SmProblem const& problem) {
  return std::max(problem.sms / std::max(problem.ranks_per_gpu, 1), 1);
}

CallTimes call_times(SmProblem const& problem, int num_sms) {
  return {.dispatch = call_time(problem, figures::dispatch, num_sms),
          .combine = call_time(problem, figures::combine, num_sms)};
}

int default_sms(SmProblem const& problem) {
  int const most = most_sms(problem);
  CallTimes const best = call_times(problem, most);
  int num_sms = 1;
  while (num_sms < most && !good_enough(call_times(problem, num_sms), best)) ++num_sms;
  return num_sms;
}

}  // namespace switchyard
