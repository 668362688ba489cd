#include "transport/faulty/faults.hpp"

#include <array>

namespace switchyard::transport::faulty {

Faults faults_of(std::uint64_t seed, int number) {
  std::mt19937_64 random(seed);
  auto const among = [&random](auto... values) {
    std::array const all{values...};
    return all.at(random() % all.size());
  };
  // In the order of the fields: it is the order in which the numbers are drawn.
  return {.seed = seed,
          .number = number,
          .delayed = among(0.0, 0.1, 0.5, 0.9),
          .max_delay = among(1, 30, 300, 3000),
          .pieces = among(1, 2, 5, max_pieces),
          .twice = among(0.0, 0.1, 0.5),
          .busy = among(0.0, 0.05, 0.3),
          .max_storm = among(1, 10, 200),
          .stalled = among(0.0, 0.01, 0.1),
          .max_stall = among(1, 10, 200),
          .max_writes = among(std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{5}, std::size_t{32}),
          .max_events = among(std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{7})};
}

bool Chance::happens(double share) {
  constexpr std::size_t steps = 1U << 20U;
  return static_cast<double>(below(steps)) < share * static_cast<double>(steps);
}

std::uint64_t Chance::delay() {
  if (faults_.max_delay < 1 || !happens(faults_.delayed)) return 0;
  return 1 + below(1 + below(static_cast<std::size_t>(faults_.max_delay)));
}

}  // namespace switchyard::transport::faulty
