#include "plan/experts/replicas.hpp"

#include <queue>

namespace switchyard::experts {

namespace {

template <typename Real>
struct Candidate {
  Real share = 0;
  int replicas = 0;
  int expert = 0;

  // Whether the other one comes first. Where nothing weighs anything, whoever has fewer replicas comes first.
  bool operator<(Candidate const& other) const noexcept {
    if (share != other.share) return share < other.share;
    if (share == 0 && replicas != other.replicas) return replicas > other.replicas;
    return expert > other.expert;
  }
};

}  // namespace

template <typename Real>
std::vector<int> count_replicas(std::span<Real const> loads, int replicas) {
  std::vector<int> counts(loads.size(), 1);
  std::vector<Candidate<Real>> all;
  all.reserve(loads.size());
  for (std::size_t i = 0; i < loads.size(); ++i) all.push_back({loads[i], 1, static_cast<int>(i)});
  std::priority_queue<Candidate<Real>> queue({}, std::move(all));
  for (int made = static_cast<int>(loads.size()); made < replicas; ++made) {
    Candidate<Real> next = queue.top();
    queue.pop();
    auto const expert = static_cast<std::size_t>(next.expert);
    next.replicas = ++counts[expert];
    next.share = loads[expert] / static_cast<Real>(next.replicas);
    queue.push(next);
  }
  return counts;
}

template std::vector<int> count_replicas(std::span<float const>, int);
template std::vector<int> count_replicas(std::span<double const>, int);

}  // namespace switchyard::experts
