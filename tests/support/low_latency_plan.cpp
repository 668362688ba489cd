#include "support/low_latency_plan.hpp"

#include "support/problem.hpp"

namespace switchyard::test {
namespace {

class Planner {
 public:
  Planner(int trips, int frames) : trips_(trips), frames_(frames), done_(index(trips), 0) {}

  [[nodiscard]] std::vector<PlannedHalf> possible() const {
    std::vector<PlannedHalf> halves;
    bool const frame_is_free = sent_ < frames_ || (sent_ < trips_ && done_[index(sent_ - frames_)] == 4);
    if (dispatching_ < 0 && sent_ < trips_ && frame_is_free) halves.push_back({Half::send, sent_});
    if (dispatching_ >= 0) halves.push_back({Half::receive, dispatching_});
    if (combining_ >= 0) halves.push_back({Half::receive_outputs, combining_});
    for (int trip = 0; combining_ < 0 && trip < sent_; ++trip) {
      if (done_[index(trip)] == 2) halves.push_back({Half::send_outputs, trip});
    }
    return halves;
  }

  void take(PlannedHalf chosen) {
    ++done_[index(chosen.trip)];
    if (chosen.half == Half::send) ++sent_;
    if (chosen.half == Half::send) dispatching_ = chosen.trip;
    if (chosen.half == Half::receive) dispatching_ = -1;
    if (chosen.half == Half::send_outputs) combining_ = chosen.trip;
    if (chosen.half == Half::receive_outputs) combining_ = -1;
  }

 private:
  int trips_;
  int frames_;
  std::vector<int> done_;  // halves of each trip
  int sent_ = 0;
  int dispatching_ = -1;
  int combining_ = -1;
};

}  // namespace

std::vector<PlannedHalf> plan_halves(int trips, int frames, Random& random) {
  std::vector<PlannedHalf> plan;
  Planner planner(trips, frames);
  for (auto possible = planner.possible(); !possible.empty(); possible = planner.possible()) {
    plan.push_back(possible[index(random.below(static_cast<std::int64_t>(possible.size())))]);
    planner.take(plan.back());
  }
  return plan;
}

}  // namespace switchyard::test
