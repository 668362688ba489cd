// What a faulty endpoint does wrong, and the chance that drives it. Delays are counted in polls of the endpoint,
// not in time, so that a test that uses one thread runs the same way each time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace switchyard::transport::faulty {

// Faulty endpoints that know one another at most: their numbers travel in immediates.
inline constexpr int max_endpoints = 2048;
// Pieces that the bytes of a write are cut into at most. Each may go twice.
inline constexpr int max_pieces = 8;

struct Faults {
  std::uint64_t seed = 1;
  // Which endpoint this is. No two that know each other may have the same.
  int number = 0;

  // Writes, pieces of writes, and events that are held back, as a share of 1, and for how many polls at most. What
  // is held back is overtaken by what comes after it.
  double delayed = 0;
  int max_delay = 0;
  // Pieces of one write at most; they arrive in any order. Those that go twice, as a share of 1.
  int pieces = 1;
  double twice = 0;
  // Posts that begin a storm of `busy`, as a share of 1, and how many posts in a row one lasts at most.
  double busy = 0;
  int max_storm = 0;
  // Polls that begin a time in which nothing is taken from the endpoint below, whose queues then fill; how many
  // polls one lasts at most.
  double stalled = 0;
  int max_stall = 0;
  std::size_t max_writes = 0;  // under way at most; 0: as many as the endpoint below takes
  std::size_t max_events = 0;  // of a poll; 0: as many as there are
};

// Something of everything, and other proportions with each seed.
Faults faults_of(std::uint64_t seed, int number);

class Chance {
 public:
  explicit Chance(Faults const& faults)
      : faults_(faults), random_(faults.seed * max_endpoints + number_of(faults)) {}

  // Below `end`, which is at least 1.
  std::size_t below(std::size_t end) { return static_cast<std::size_t>(random_() % end); }
  bool happens(double share);
  // How many polls to hold something back: mostly few, now and then as many as may be.
  std::uint64_t delay();
  template <typename Item>
  void shuffle(std::vector<Item>& items) {
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  static std::uint64_t number_of(Faults const& faults) { return static_cast<std::uint64_t>(faults.number); }

  Faults const& faults_;
  std::mt19937_64 random_;
};

}  // namespace switchyard::transport::faulty
