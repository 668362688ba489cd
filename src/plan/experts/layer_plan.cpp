#include "plan/experts/layer_plan.hpp"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "plan/experts/align.hpp"
#include "plan/experts/balance.hpp"
#include "plan/experts/greedy.hpp"
#include "plan/experts/localize.hpp"
#include "plan/experts/units.hpp"

namespace switchyard::experts {

namespace {

// What is closer to the least that is possible than a thousandth is not worth a search.
Amount close_to(Amount least) noexcept {
  return least + least / 1024;
}

// No map with these units has a lighter heaviest GPU: greedy counts have the lightest replicas that can be.
Amount least_load(Placement const& greedy, std::vector<Amount> const& domain_loads) {
  Amount least = 0;
  for (Amount const total : domain_loads) least = std::max(least, total / greedy.cluster().gpus_per_domain());
  for (int expert = 0; expert < greedy.cluster().experts; ++expert) least = std::max(least, greedy.share(expert));
  return least;
}

// A placement, and the units that its domains are made of.
struct Start {
  std::vector<int> units;
  Placement placement;
};

class LayerPlan {
 public:
  LayerPlan(Cluster const& cluster, LayerArgs const& args)
      : cluster_(cluster),
        args_(args),
        scale_(args.load),
        loads_(scale_.of(args.load)),
        greedy_(lighter(greedy<double>(), greedy<float>())),
        moves_(args.old) {
    limit_ = greedy_.placement.most_load();
    // More than everything is no limit either, and might not fit.
    double const more = static_cast<double>(limit_) * args.slack;
    limit_ = more < static_cast<double>(total() - limit_) ? limit_ + static_cast<Amount>(more) : total();
  }

  std::vector<int> run() {
    if (moves_.counted()) {
      if (auto kept = from_old()) return kept->experts();
    }
    Placement fresh = from_nothing();
    if (moves_.counted()) {
      fresh = Placement(cluster_, loads_, aligned(fresh, moves_));
      bring_back(fresh, limit_, moves_);
    }
    keep_local(fresh);
    return fresh.experts();
  }

 private:
  [[nodiscard]] Amount total() const { return std::accumulate(loads_.begin(), loads_.end(), Amount{0}); }

  // Few steps away from the map before; nothing, if that does not lead below the limit.
  std::optional<Placement> from_old() {
    std::vector<int> const before = units_of(cluster_, args_.old);
    if (before.empty()) return std::nullopt;
    int const gpus = cluster_.gpus_per_domain();
    Amount const enough = limit_ < total() / gpus ? limit_ * gpus : total();
    std::vector<int> const after = even_out(cluster_, loads_, before, enough);
    Placement placement(cluster_, loads_, exchanged(cluster_, args_.old, before, after));
    balance(placement, limit_, moves_);
    if (placement.most_load() > limit_) return std::nullopt;
    bring_back(placement, limit_, moves_);
    keep_local(placement);
    return placement;
  }

  template <typename Real>
  [[nodiscard]] Placement placed(std::vector<int> const& units) const {
    std::vector<Real> const loads = scale_.real<Real>(args_.load);
    return {cluster_, loads_, place_greedily<Real>(cluster_, loads, units)};
  }

  template <typename Real>
  [[nodiscard]] Start greedy() const {
    std::vector<Real> const loads = scale_.real<Real>(args_.load);
    std::vector<int> units = pack_units<Real>(cluster_, loads);
    Placement placement = placed<Real>(units);
    return {std::move(units), std::move(placement)};
  }

  static Start lighter(Start one, Start two) {
    return two.placement.most_load() < one.placement.most_load() ? std::move(two) : std::move(one);
  }

  // As even as possible.
  Placement from_nothing() {
    Start best = searched(greedy_);
    std::vector<int> const evened = even_out(cluster_, loads_, greedy_.units, 0);
    if (evened != greedy_.units) best = lighter(std::move(best), searched({evened, placed<double>(evened)}));
    return best.placement;
  }

  Start searched(Start start) {
    Amount const least = least_load(start.placement, domain_loads(cluster_, loads_, start.units));
    balance(start.placement, close_to(least), Moves{});
    return start;
  }

  void keep_local(Placement& placement) {
    if (args_.tokens.empty()) return;
    FixedPoint const scale(args_.tokens);
    std::vector<Amount> const tokens = scale.of(args_.tokens);
    localize(placement, {.tokens = tokens, .limit = limit_, .move_cost = scale.of(args_.move_cost)}, moves_);
  }

  Cluster const& cluster_;
  LayerArgs const& args_;
  FixedPoint scale_;
  std::vector<Amount> loads_;
  Start greedy_;
  Moves moves_;
  Amount limit_ = 0;
};

}  // namespace

std::vector<int> plan_layer(Cluster const& cluster, LayerArgs const& args) {
  return LayerPlan(cluster, args).run();
}

}  // namespace switchyard::experts
