#include "cli/bench/trace_file.hpp"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <set>

#include "cli/bench/result_file.hpp"
#include "switchyard/trace.hpp"

namespace switchyard::cli {

namespace {

using json = nlohmann::ordered_json;

// A rank's events have to fit into one all_gather.
constexpr std::size_t max_spans = 60000;

json metadata(char const* name, int rank, int worker, std::string const& value) {
  return {{"ph", "M"}, {"name", name}, {"pid", rank}, {"tid", worker}, {"args", {{"name", value}}}};
}

std::string events_of(int rank, std::vector<TraceSpan> const& spans) {
  json events = json::array({metadata("process_name", rank, 0, fmt::format("rank {}", rank))});
  std::set<int> workers;
  for (std::size_t i = 0; i < std::min(spans.size(), max_spans); ++i) {
    TraceSpan const& span = spans[i];
    if (workers.insert(span.worker).second) {
      events.push_back(metadata("thread_name", rank, span.worker, fmt::format("worker {}", span.worker)));
    }
    events.push_back({{"ph", "X"},
                      {"name", span.name},
                      {"pid", rank},
                      {"tid", span.worker},
                      {"ts", static_cast<double>(span.begin_ns) / 1e3},
                      {"dur", static_cast<double>(span.end_ns - span.begin_ns) / 1e3}});
  }
  return events.dump();
}

}  // namespace

void write_trace(Communicator& communicator, std::string const& path) {
  std::string const mine = events_of(communicator.rank(), take_trace(communicator.rank()));
  auto const all = communicator.all_gather(std::as_bytes(std::span(mine)));
  if (communicator.rank() != 0) return;
  json events = json::array();
  for (auto const& part : all) {
    auto const* const text = reinterpret_cast<char const*>(part.data());
    for (auto& event : json::parse(text, text + part.size())) events.push_back(std::move(event));
  }
  write_file(path, json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ns"}}.dump() + "\n");
}

}  // namespace switchyard::cli
