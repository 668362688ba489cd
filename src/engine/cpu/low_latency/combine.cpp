// Low-latency combine: the send half stages outputs where need be and raises the flags; the receive half reads the
// rows of the own tokens and sums them.
#include <array>
#include <cstring>
#include <vector>

#include "base/check.hpp"
#include "base/trace.hpp"
#include "engine/cpu/low_latency/engine.hpp"
#include "engine/cpu/low_latency/over_nodes.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "engine/cpu/token_chunks.hpp"
#include "layout/logfmt.hpp"
#include "layout/routes.hpp"

namespace switchyard::cpu {

namespace {

constexpr std::int64_t chunk_rows = 8;
constexpr std::int64_t chunk_tokens = 4;

}  // namespace

// Sums the outputs of this rank's tokens: those of this node, read where their experts have left them, and the sums
// that other nodes have sent.
class SumRows {
 public:
  SumRows(LowLatency& engine, LowLatencyCombineArgs const& args, FrameUse const& use)
      : engine_(engine),
        slots_(engine.slots_),
        args_(args),
        use_(use),
        shape_(shape_of(args)),
        bays_(engine.of(use).bays),
        routes_(engine.of(use).routes) {}

  void run(int workers) {
    TokenChunks chunks(routes_.tokens(), chunk_tokens);
    engine_.pool_.run(workers, [&](int worker) {
      TraceScope const span("low_latency/sum", slots_.rank(), worker);
      OutputSum sum(shape_, args_.topk_weights.given(), slots_.sizes().top_k);
      NodeParts parts(shape_, slots_.node().topology().num_nodes());
      chunks.for_each([&](std::int64_t token) {
        gather(token, sum);
        if (engine_.over_nodes_ == nullptr) return sum.finish(out(token));
        sum_parts(token, sum, parts);
      });
      store_fence();  // the caller may hand the result to any thread
    });
  }

 private:
  // A row of each rank of this node that the token went to.
  struct Term {
    int rank = 0;
    std::byte const* row = nullptr;
    float weight = 1;
  };

  [[nodiscard]] std::byte* out(std::int64_t token) const {
    TensorView const& view = args_.out;
    return static_cast<std::byte*>(view.data) +
           token * view.stride(0) * static_cast<std::int64_t>(size_of(view.dtype));
  }

  void gather(std::int64_t token, OutputSum& sum) const {
    std::array<Term, max_top_k> terms;
    std::size_t count = 0;
    auto const experts = routes_.experts(token);
    for (std::size_t slot = 0; slot < experts.size(); ++slot) {
      std::int64_t const row = routes_.row(token, slot);
      if (row < 0) continue;
      int const rank = routes_.rank_of(experts[slot]);
      if (engine_.masked(rank)) continue;
      Term const term{.rank = rank, .row = row_at(rank, experts[slot], row), .weight = weight(token, slot)};
      std::size_t at = count++;
      // rank_major: terms are ordered by rank, each of which has one row.
      for (; !by_expert() && at > 0 && terms[at - 1].rank > rank; --at) terms[at] = terms[at - 1];
      terms[at] = term;
    }
    sum.begin();
    for (Term const& term : std::span(terms).first(count)) sum.add(term.row, term.weight);
  }

  [[nodiscard]] bool by_expert() const { return routes_.layout() == SlotLayout::expert_major; }
  [[nodiscard]] float weight(std::int64_t token, std::size_t slot) const {
    return args_.topk_weights.given() ? weight_at(args_.topk_weights, token, static_cast<std::int64_t>(slot))
                                      : 1.0F;
  }
  [[nodiscard]] std::byte const* row_at(int rank, int expert, std::int64_t row) const {
    std::int64_t const group = by_expert() ? (expert - slots_.experts().first(rank)) * slots_.expert_slots()
                                           : slots_.rank() * slots_.sizes().max_tokens;
    return slots_.bay(rank, bays_[static_cast<std::size_t>(rank)]) + slots_.at().outputs +
           static_cast<std::size_t>(group + row) * shape_.row_bytes();
  }

  // In the order of nodes.
  void sum_parts(std::int64_t token, OutputSum& sum, NodeParts& parts) const {
    parts.begin();
    Topology const& topology = slots_.node().topology();
    for (int node = 0; node < topology.num_nodes(); ++node) {
      if (node == slots_.node().node()) {
        if (!sum.empty()) parts.add_own(sum.finish_f32());
      } else if (std::byte const* const row = engine_.over_nodes_->sum_of(use_, node, token)) {
        parts.add(row);
      }
    }
    parts.finish(out(token));
  }

  LowLatency& engine_;
  Slots const& slots_;
  LowLatencyCombineArgs const& args_;
  FrameUse use_;
  OutputShape shape_;
  std::vector<int> const& bays_;
  SlotRoutes const& routes_;
};

void LowLatency::check_combine(FrameUse const& use) {
  check_usable();
  require(of(use).received, "handle: expected one of a dispatch whose receive half is done, seen one before it");
  require(of(use).combine_received,
          "handle: expected one whose last combine's receive half is done, seen one before it");
}

void LowLatency::send_combine(FrameUse const& use, LowLatencyCombineArgs const& args, int workers) {
  check_usable();
  run_half("low_latency/outputs", [&] {
    Frame& frame = of(use);
    ++frame.combines;
    frame.combine_received = false;
    frame.combine_digest = combine_digest(args, frame.rows.layout);
    frame.outputs = shape_of(args);
    if (over_nodes_) over_nodes_->ask(use, args);
    if (frame.combines > 1) meet_readers(use);
    stage_outputs(use, args, workers);
    raise_ready(use);
  });
}

FlagWait LowLatency::combine_wait(FrameUse const& use, FrameFlag* flags, char const* phase) const {
  return {.flags = flags,
          .frame = use.frame,
          .epoch = use.epoch,
          .phase = phase,
          .within_node = true,
          .number_bits = combine_number_bits,
          .number = of(use).combines - 1};
}

void LowLatency::raise_ready(FrameUse const& use) {
  std::uint64_t const word = combine_wait(use, nullptr, "").word();
  for (int const peer : slots_.local_ranks()) {
    if (masked(peer)) continue;
    raise(peer, slots_.ready(peer, use.frame)[slots_.rank()], {word, of(use).combine_digest});
  }
}

// The release stores of raise() come after this rank's reads for the combine before, and its peers acquire them
// before they write their outputs anew. So nobody reads rows of two combines, and nobody misses the flag of one.
void LowLatency::meet_readers(FrameUse const& use) {
  FlagWait const wait = combine_wait(use, slots_.read(slots_.rank(), use.frame), "low_latency/read");
  for (int const peer : slots_.local_ranks()) {
    if (!masked(peer)) raise(peer, slots_.read(peer, use.frame)[slots_.rank()], {wait.word(), 0});
  }
  await_flags(wait);
}

std::vector<std::int64_t> LowLatency::slots_received(FrameUse const& use) {
  std::vector<std::int64_t> result;
  auto const add = [&result](std::int64_t first, SlotRange const& range) {
    for (std::int64_t row = 0; row < range.count; ++row) result.push_back(first + range.begin + row);
  };
  int const rank = slots_.rank();
  if (of(use).rows.layout == SlotLayout::expert_major) {
    std::int64_t const* const ranges = slots_.ranges(rank, use.stay.bay);
    for (int index = 0; index < slots_.local_experts() * slots_.num_ranks(); ++index) {
      SlotRange const range = SlotRange::unpack(ranges[index]);
      if (!range.within(slots_.expert_slots()))
        fail_broken("low_latency/outputs", index % slots_.num_ranks(), "range", index);
      add(index / slots_.num_ranks() * slots_.expert_slots(), range);
    }
    return result;
  }
  auto const* const counts =
      reinterpret_cast<std::int32_t const*>(slots_.bay(rank, use.stay.bay) + slots_.at().counts);
  for (int source = 0; source < slots_.num_ranks(); ++source) {
    std::int64_t const count = counts[source];
    if (count < 0 || count > slots_.sizes().max_tokens) fail_broken("low_latency/outputs", source, "rows", count);
    add(source * slots_.sizes().max_tokens, {.count = count});
  }
  return result;
}

void LowLatency::stage_outputs(FrameUse const& use, LowLatencyCombineArgs const& args, int workers) {
  std::byte* const to = slots_.bay(slots_.rank(), use.stay.bay) + slots_.at().outputs;
  auto const* const from = static_cast<std::byte const*>(args.x.data);
  OutputShape const& shape = of(use).outputs;
  if (shape.coded) return code_outputs(use, args, workers);
  std::size_t const x_bytes = shape.row_bytes();
  if (from == to) return;
  std::vector<std::int64_t> const slots = slots_received(use);
  for_each_row(slots.size(), workers, [&](std::size_t at) {
    std::size_t const row = static_cast<std::size_t>(slots[at]) * x_bytes;
    stream_copy(to + row, from + row, x_bytes);
  });
}

void LowLatency::code_outputs(FrameUse const& use, LowLatencyCombineArgs const& args, int workers) {
  std::byte* const to = slots_.bay(slots_.rank(), use.stay.bay) + slots_.at().outputs;
  auto const* const from = static_cast<std::byte const*>(args.x.data);
  std::vector<std::int64_t> const slots = slots_received(use);
  std::size_t const bytes = of(use).outputs.row_bytes();
  std::size_t const x_bytes = static_cast<std::size_t>(args.x.size(2)) * size_of(args.x.dtype);
  for_each_row(slots.size(), workers, [&](std::size_t at) {
    auto const slot = static_cast<std::size_t>(slots[at]);
    encode_logfmt({.values = from + slot * x_bytes,
                   .count = static_cast<std::size_t>(args.x.size(2)),
                   .dtype = args.x.dtype,
                   .coded = to + slot * bytes});
  });
}

void LowLatency::for_each_row(std::size_t rows, int workers, std::function<void(std::size_t)> const& work) {
  TokenChunks chunks(static_cast<std::int64_t>(rows), chunk_rows);
  pool_.run(workers, [&](int worker) {
    TraceScope const span("low_latency/stage", slots_.rank(), worker);
    chunks.for_each([&](std::int64_t at) { work(static_cast<std::size_t>(at)); });
    store_fence();  // the release of the flags does not order non-temporal stores
  });
}

void LowLatency::receive_combine(FrameUse const& use, LowLatencyCombineArgs const& args, int workers) {
  run_half("low_latency/combine", [&] {
    FlagWait wait = combine_wait(use, slots_.ready(slots_.rank(), use.frame), "low_latency/combine");
    wait.wait_ns = args.wait_ns_per_source;
    await_flags(wait);
    check_digests(wait, of(use).combine_digest, "layout, dtype and coding");
    if (over_nodes_) over_nodes_->end_combine(use, args);
    SumRows(*this, args, use).run(workers);
    of(use).combine_received = true;
  });
}

}  // namespace switchyard::cpu
