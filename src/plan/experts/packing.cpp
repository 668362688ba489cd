#include "plan/experts/packing.hpp"

#include <algorithm>
#include <numeric>
#include <queue>

namespace switchyard::experts {

namespace {

template <typename Real>
struct Bin {
  Real weight = 0;
  int index = 0;
  int room = 0;

  // Whether the other one comes first.
  bool operator<(Bin const& other) const noexcept {
    return weight != other.weight ? weight > other.weight : index > other.index;
  }
};

}  // namespace

template <typename Real>
std::vector<int> heaviest_first(std::span<Real const> weights) {
  std::vector<int> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return weights[static_cast<std::size_t>(a)] > weights[static_cast<std::size_t>(b)];
  });
  return order;
}

template <typename Real>
std::vector<int> pack(std::span<Real const> items, int bins) {
  std::vector<Bin<Real>> empty;
  empty.reserve(static_cast<std::size_t>(bins));
  for (int i = 0; i < bins; ++i) empty.push_back({0, i, static_cast<int>(items.size()) / bins});
  std::priority_queue<Bin<Real>> queue({}, std::move(empty));
  std::vector<int> bin_of;
  bin_of.reserve(items.size());
  for (Real const item : items) {
    Bin<Real> bin = queue.top();
    queue.pop();
    bin_of.push_back(bin.index);
    bin.weight += item;
    if (--bin.room > 0) queue.push(bin);
  }
  return bin_of;
}

template std::vector<int> heaviest_first(std::span<float const>);
template std::vector<int> heaviest_first(std::span<double const>);
template std::vector<int> pack(std::span<float const>, int);
template std::vector<int> pack(std::span<double const>, int);

}  // namespace switchyard::experts
