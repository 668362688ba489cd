#include "plan/simulator/traffic.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/check.hpp"
#include "layout/scale_out/wire_size.hpp"

namespace switchyard::simulator {

namespace {

using scale_out::NodeTokens;

double sum_of(std::vector<std::uint32_t> const& counts) {
  return std::accumulate(counts.begin(), counts.end(), 0.0);
}

double at_quantile(std::vector<double> const& sorted, double share) {
  return sorted[static_cast<std::size_t>(std::lround(share * static_cast<double>(sorted.size() - 1)))];
}

// `loads`: rows of each rank (or node) that were seen, where a rank will have `expected` on average. Chance spreads
// a sample's loads more than those of the whole: what it adds to the sample is taken out, what it adds to the whole
// put in.
Skew skew_of(std::vector<double> loads, double expected) {
  double const mean = std::accumulate(loads.begin(), loads.end(), 0.0) / static_cast<double>(loads.size());
  if (mean <= 0 || expected <= 0) return {};
  double seen = 0;
  for (double& load : loads) {
    load = load / mean - 1;
    seen += load * load / static_cast<double>(loads.size());
  }
  if (seen <= 0) return {};
  double const wanted = seen > 1 / mean ? seen - 1 / mean + 1 / expected : seen * mean / expected;
  double const scale = std::sqrt(wanted / seen);
  std::ranges::sort(loads);
  auto const ratio = [&](double share) { return std::max(0.0, 1 + scale * at_quantile(loads, share)); };
  return {.median = ratio(0.5), .p90 = ratio(0.9), .max = std::max(1.0, ratio(1))};
}

class Counter {
 public:
  Counter(Job const& job, Topology const& topology)
      : job_(job),
        nodes_(job.figures().nodes),
        topology_(topology),
        experts_(job.experts, job.ranks),
        there_(scale_out::experts_by_node(topology, experts_)),
        rank_loads_(static_cast<std::size_t>(job.ranks)),
        node_loads_(static_cast<std::size_t>(topology.num_nodes())) {}

  void add(SourceIds const& source) {
    require(source.rank >= 0 && source.rank < job_.ranks, "routing: source: expected 0..{}, seen {}",
            job_.ranks - 1, source.rank);
    ConstTensorView const ids{source.ids.data(), DType::i32, {job_.tokens, job_.top_k}};
    auto const to_nodes = scale_out::tokens_by_node(ids, topology_, experts_);
    for (int node = 0; node < topology_.num_nodes(); ++node)
      add_node(source.rank, node, to_nodes[static_cast<std::size_t>(node)]);
    ++total_.sources;
  }

  Traffic take() {
    double const sources = std::max(1, total_.sources);
    for (double* const sum :
         {&total_.rank_rows, &total_.node_rows, &total_.link_rows, &total_.nic_rows, &total_.dispatch_nic_bytes,
          &total_.combine_nic_bytes, &total_.dispatch_messages, &total_.combine_messages})
      *sum /= sources;
    total_.dispatch_link_bytes = total_.link_rows * sent_row();
    total_.combine_link_bytes = total_.link_rows * static_cast<double>(job_.output_bytes);
    total_.link = skew_of(rank_loads_, total_.rank_rows);
    total_.nic = nodes_.crossing == Crossing::per_node ? skew_of(node_loads_, total_.nic_rows)
                                                       : skew_of(rank_loads_, total_.nic_rows);
    return total_;
  }

 private:
  // Of a row with what goes along.
  [[nodiscard]] double sent_row() const {
    ModeFigures const& figures = job_.figures();
    return static_cast<double>(job_.payload_bytes + job_.scale_bytes) + figures.row_extra +
           figures.slot_extra * job_.top_k;
  }

  void add_node(int source, int node, NodeTokens const& to) {
    bool const home = node == topology_.node_of(source);
    auto const rows = rows_by_rank(node, to);
    double const all = std::accumulate(rows.begin(), rows.end(), 0.0);
    // The rank that has the rows first: the source, or its rail peer on the other node.
    int const entry = home ? source : topology_.rail_peer(source, node);
    double const stay = rows[static_cast<std::size_t>(topology_.local_rank_of(entry))];
    auto const tokens = static_cast<double>(to.size());
    total_.rank_rows += all;
    total_.node_rows += tokens;
    if (home || nodes_.crossing == Crossing::per_node) total_.link_rows += all - stay;
    if (!home) add_crossing(node, to);
    node_loads_[static_cast<std::size_t>(node)] += tokens;
    for (std::size_t local = 0; local < rows.size(); ++local)
      rank_loads_[static_cast<std::size_t>(topology_.rank_of(node, static_cast<int>(local)))] += rows[local];
  }

  // By local rank: rows that it gets.
  [[nodiscard]] std::vector<double> rows_by_rank(int node, NodeTokens const& to) const {
    if (!nodes_.row_per_slot) return {to.counts.rows.begin(), to.counts.rows.end()};
    auto const& there = there_[static_cast<std::size_t>(node)];
    std::vector<double> rows(static_cast<std::size_t>(there.num_ranks()));
    for (int expert = 0; expert < there.count(); ++expert)
      rows[static_cast<std::size_t>(there.local_rank_of(expert))] +=
          to.counts.slots[static_cast<std::size_t>(expert)];
    return rows;
  }

  void add_crossing(int node, NodeTokens const& to) {
    if (job_.library->name == "switchyard") return add_our_chunks(node, to);
    double rows = static_cast<double>(to.size());
    if (nodes_.crossing == Crossing::per_rank) rows = sum_of(to.counts.rows);
    if (nodes_.crossing == Crossing::per_slot) rows = sum_of(to.counts.slots);
    double const messages = std::ceil(rows / nodes_.rows_per_message);
    total_.nic_rows += rows;
    total_.dispatch_nic_bytes += rows * sent_row();
    total_.combine_nic_bytes += rows * static_cast<double>(job_.output_bytes);
    total_.dispatch_messages += messages;
    total_.combine_messages += messages;
  }

  // To the byte, as the engines send it.
  void add_our_chunks(int node, NodeTokens const& to) {
    bool const latency = job_.mode == Mode::latency;
    std::size_t const slot_bytes = latency ? latency_chunk_bytes : scale_out::default_chunk_bytes;
    scale_out::DispatchTerms const terms{.layout = latency ? OutputLayout::expanded : OutputLayout::flat,
                                         .top_k = job_.top_k,
                                         .weights = true,
                                         .row_bytes = job_.payload_bytes,
                                         .scale_bytes = job_.scale_bytes,
                                         .max_tokens = job_.tokens};
    auto const& there = there_[static_cast<std::size_t>(node)];
    auto const room = std::max(slot_bytes, scale_out::least_dispatch_chunk(terms, there));
    auto const out = scale_out::dispatch_wire_size(terms, there, to, room);
    scale_out::CombineStream const stream{.row_bytes = job_.output_bytes,
                                          .tokens = static_cast<std::uint32_t>(to.size())};
    auto const back = scale_out::combine_wire_size(stream, std::max(slot_bytes, job_.output_bytes + 4096));
    total_.nic_rows += static_cast<double>(out.rows);
    total_.dispatch_nic_bytes += static_cast<double>(out.bytes);
    total_.combine_nic_bytes += static_cast<double>(back.bytes);
    total_.dispatch_messages += static_cast<double>(out.writes);
    total_.combine_messages += static_cast<double>(back.writes);
  }

  static constexpr std::size_t latency_chunk_bytes = std::size_t{64} << 10;

  Job const& job_;
  CrossingFigures const& nodes_;
  Topology const& topology_;
  ExpertSplit experts_;
  std::vector<scale_out::NodeExperts> there_;  // by node
  std::vector<double> rank_loads_;             // rows that came to each rank from the sources that were counted
  std::vector<double> node_loads_;
  Traffic total_{};
};

}  // namespace

Topology topology_of(Job const& job) {
  Machine const& machine = *job.machine;
  require(job.ranks > 0, "ranks: expected 1 or more, seen {}", job.ranks);
  require(machine.nodes == 0 || job.ranks <= machine.gpus(),
          "ranks: expected at most {}, the GPUs of {} ({} nodes of {}), seen {}", machine.gpus(), machine.name,
          machine.nodes, machine.gpus_per_node, job.ranks);
  int const each = std::min(machine.gpus_per_node, max_node_ranks);
  std::vector<int> node_by_rank(static_cast<std::size_t>(job.ranks));
  for (int rank = 0; rank < job.ranks; ++rank) node_by_rank[static_cast<std::size_t>(rank)] = rank / each;
  return Topology(node_by_rank);
}

Traffic count_traffic(Job const& job, Topology const& topology, std::span<SourceIds const> sources) {
  Counter counter(job, topology);
  for (SourceIds const& source : sources) counter.add(source);
  return counter.take();
}

}  // namespace switchyard::simulator
