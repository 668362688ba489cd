#include "cli/bench/gather.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <span>

namespace switchyard::cli {

namespace {

std::vector<double> pack(RankSamples const& samples) {
  std::vector<double> out{static_cast<double>(samples.dispatch_us.size()),
                          static_cast<double>(samples.libc_copy_us.size()),
                          static_cast<double>(samples.device_copy_us.size()),
                          static_cast<double>(samples.layout_us.size()),
                          static_cast<double>(samples.dispatch_phases_us.size()),
                          static_cast<double>(samples.combine_phases_us.size()),
                          static_cast<double>(samples.layout_phases_us.size()),
                          samples.pss_bytes,
                          samples.resident_peak_bytes,
                          samples.heap_peak_bytes};
  for (auto const* list : {&samples.dispatch_us, &samples.combine_us, &samples.libc_copy_us,
                           &samples.non_temporal_copy_us, &samples.device_copy_us, &samples.layout_us,
                           &samples.dispatch_phases_us, &samples.combine_phases_us, &samples.layout_phases_us}) {
    out.insert(out.end(), list->begin(), list->end());
  }
  return out;
}

// From our own ranks, all of which run this program: of the form that pack() makes.
RankSamples unpack(std::span<double const> packed) {
  auto const iterations = static_cast<std::size_t>(packed[0]);
  auto const copies = static_cast<std::size_t>(packed[1]);
  RankSamples samples;
  auto const device_copies = static_cast<std::size_t>(packed[2]);
  auto const layouts = static_cast<std::size_t>(packed[3]);
  auto const dispatch_phases = static_cast<std::size_t>(packed[4]);
  auto const combine_phases = static_cast<std::size_t>(packed[5]);
  auto const layout_phases = static_cast<std::size_t>(packed[6]);
  samples.pss_bytes = packed[7];
  samples.resident_peak_bytes = packed[8];
  samples.heap_peak_bytes = packed[9];
  packed = packed.subspan(10);
  auto const take = [&packed](std::size_t count, std::vector<double>& list) {
    auto const part = packed.first(count);
    list.assign(part.begin(), part.end());
    packed = packed.subspan(count);
  };
  take(iterations, samples.dispatch_us);
  take(iterations, samples.combine_us);
  take(copies, samples.libc_copy_us);
  take(copies, samples.non_temporal_copy_us);
  take(device_copies, samples.device_copy_us);
  take(layouts, samples.layout_us);
  take(dispatch_phases, samples.dispatch_phases_us);
  take(combine_phases, samples.combine_phases_us);
  take(layout_phases, samples.layout_phases_us);
  return samples;
}

}  // namespace

std::vector<std::vector<double>> gather_numbers(Communicator& communicator, std::span<double const> mine) {
  std::vector<std::vector<double>> all;
  for (auto const& bytes : communicator.all_gather(std::as_bytes(mine))) {
    all.emplace_back(bytes.size() / sizeof(double));
    if (!all.back().empty()) std::memcpy(all.back().data(), bytes.data(), all.back().size() * sizeof(double));
  }
  return all;
}

std::vector<RankSamples> gather_samples(Communicator& communicator, RankSamples const& mine) {
  std::vector<RankSamples> all;
  for (auto const& packed : gather_numbers(communicator, pack(mine))) all.push_back(unpack(packed));
  return all;
}

std::vector<std::string> gather_mismatches(Communicator& communicator, std::optional<std::string> const& mine) {
  std::vector<std::string> found;
  std::string const own = mine.value_or("");
  for (auto const& bytes : communicator.all_gather(std::as_bytes(std::span(own)))) {
    if (!bytes.empty()) found.emplace_back(reinterpret_cast<char const*>(bytes.data()), bytes.size());
  }
  return found;
}

std::int64_t gather_min(Communicator& communicator, std::int64_t mine) {
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (auto const& bytes : communicator.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    std::int64_t value = 0;
    std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof(value)));
    least = std::min(least, value);
  }
  return least;
}

}  // namespace switchyard::cli
