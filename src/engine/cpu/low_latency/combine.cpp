// Low-latency combine: the send half stages outputs where need be and raises the flags; the receive half reads the
// rows of the own tokens and sums them.
#include <array>
#include <cstring>
#include <vector>

#include "base/check.hpp"
#include "base/trace.hpp"
#include "engine/cpu/guarded_call.hpp"
#include "engine/cpu/low_latency/engine.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "engine/cpu/token_chunks.hpp"
#include "layout/logfmt.hpp"
#include "layout/routes.hpp"

namespace switchyard::cpu {

namespace {

constexpr std::int64_t chunk_rows = 8;
constexpr std::int64_t chunk_tokens = 4;

std::size_t plain_bytes_of(ConstTensorView const& x) noexcept {
  return static_cast<std::size_t>(x.size(2)) * size_of(x.dtype);
}

bool coded(LowLatencyCombineArgs const& args) noexcept {
  return args.coding == CombineCoding::logfmt10;
}

// The size of an output row in the bay.
std::size_t output_bytes_of(LowLatencyCombineArgs const& args) noexcept {
  return coded(args) ? logfmt_row_bytes(static_cast<std::size_t>(args.x.size(2))) : plain_bytes_of(args.x);
}

}  // namespace

// Sums the outputs of this rank's tokens, read where their experts have left them.
class SumRows {
 public:
  SumRows(LowLatency& engine, LowLatencyCombineArgs const& args, FrameUse const& use)
      : engine_(engine),
        slots_(engine.slots_),
        args_(args),
        bays_(engine.of(use).bays),
        routes_(engine.of(use).routes) {}

  void run(int workers) {
    TokenChunks chunks(routes_.tokens(), chunk_tokens);
    engine_.pool_.run(workers, [&](int worker) {
      TraceScope const span("low_latency/sum", slots_.rank(), worker);
      std::vector<float> decoded(coded(args_) ? (static_cast<std::size_t>(slots_.sizes().top_k) + 1) * hidden()
                                              : 0);
      chunks.for_each([&](std::int64_t token) { coded(args_) ? sum_coded(token, decoded) : sum(token); });
      store_fence();  // the caller may hand the result to any thread
    });
  }

 private:
  struct Terms {
    std::array<void const*, max_top_k> rows;
    std::array<int, max_top_k> ranks;
    std::array<float, max_top_k> weights;
    std::size_t count = 0;
  };

  [[nodiscard]] std::size_t hidden() const { return static_cast<std::size_t>(args_.out.size(1)); }
  [[nodiscard]] std::byte* out(std::int64_t token) const {
    TensorView const& view = args_.out;
    return static_cast<std::byte*>(view.data) +
           token * view.stride(0) * static_cast<std::int64_t>(size_of(view.dtype));
  }
  [[nodiscard]] RowSum sum_of(Terms const& terms) const {
    return {.rows = std::span(terms.rows).first(terms.count),
            .row_weights = args_.topk_weights.given() ? terms.weights.data() : nullptr,
            .count = hidden()};
  }

  void sum(std::int64_t token) const {
    Terms terms;
    gather(token, terms);
    RowSum sum = sum_of(terms);
    sum.out = out(token);
    sum.dtype = args_.out.dtype;
    sum_rows(sum);
  }

  // The same for coded rows, which are decoded first; `decoded` has room for them and for the sum.
  void sum_coded(std::int64_t token, std::vector<float>& decoded) const {
    Terms terms;
    gather(token, terms);
    float* to = decoded.data();
    for (std::size_t term = 0; term < terms.count; ++term, to += hidden()) {
      decode_logfmt(static_cast<std::byte const*>(terms.rows[term]), hidden(), to);
      terms.rows[term] = to;
    }
    RowSum sum = sum_of(terms);
    sum.out = to;
    sum.dtype = DType::f32;
    sum_rows(sum);
    narrow_row(to, hidden(), args_.out.dtype, out(token));
  }

  void gather(std::int64_t token, Terms& terms) const {
    auto const experts = routes_.experts(token);
    bool const by_expert = routes_.layout() == SlotLayout::expert_major;
    for (std::size_t slot = 0; slot < experts.size(); ++slot) {
      std::int64_t const row = routes_.row(token, slot);
      if (row < 0) continue;
      int const rank = routes_.rank_of(experts[slot]);
      if (engine_.masked(rank)) continue;
      std::int64_t const group = by_expert ? (experts[slot] - slots_.experts().first(rank)) * slots_.expert_slots()
                                           : slots_.rank() * slots_.sizes().max_tokens;
      std::size_t at = terms.count++;
      // rank_major: terms are ordered by rank, each of which has one row.
      for (; !by_expert && at > 0 && terms.ranks[at - 1] > rank; --at) {
        terms.ranks[at] = terms.ranks[at - 1];
        terms.rows[at] = terms.rows[at - 1];
      }
      terms.ranks[at] = rank;
      terms.rows[at] = slots_.bay(rank, bays_[static_cast<std::size_t>(rank)]) + slots_.at().outputs +
                       static_cast<std::size_t>(group + row) * output_bytes_of(args_);
      if (args_.topk_weights.given())
        terms.weights[at] = weight_at(args_.topk_weights, token, static_cast<std::int64_t>(slot));
    }
  }

  LowLatency& engine_;
  Slots const& slots_;
  LowLatencyCombineArgs const& args_;
  std::vector<int> const& bays_;
  SlotRoutes const& routes_;
};

void LowLatency::check_combine(FrameUse const& use) const {
  check_usable();
  require(of(use).received, "handle: expected one of a dispatch whose receive half is done, seen one before it");
  require(of(use).combine_received,
          "handle: expected one whose last combine's receive half is done, seen one before it");
}

void LowLatency::send_combine(FrameUse const& use, LowLatencyCombineArgs const& args, int workers) {
  check_usable();
  guarded_call(signals_, {slots_.rank(), "low_latency/outputs"}, [&] {
    Frame& frame = of(use);
    ++frame.combines;
    frame.combine_received = false;
    frame.combine_digest = combine_digest(args, frame.rows.layout);
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
          .number_bits = combine_number_bits,
          .number = of(use).combines - 1};
}

void LowLatency::raise_ready(FrameUse const& use) {
  std::uint64_t const word = combine_wait(use, nullptr, "").word();
  for (int peer = 0; peer < slots_.num_ranks(); ++peer) {
    if (masked(peer)) continue;
    raise(peer, slots_.ready(peer, use.frame)[slots_.rank()], {word, of(use).combine_digest});
  }
}

// The release stores of raise() come after this rank's reads for the combine before, and its peers acquire them
// before they write their outputs anew. So nobody reads rows of two combines, and nobody misses the flag of one.
void LowLatency::meet_readers(FrameUse const& use) {
  FlagWait const wait = combine_wait(use, slots_.read(slots_.rank(), use.frame), "low_latency/read");
  for (int peer = 0; peer < slots_.num_ranks(); ++peer) {
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
  std::size_t const x_bytes = plain_bytes_of(args.x);
  if (coded(args)) return code_outputs(use, args, workers);
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
  std::size_t const x_bytes = plain_bytes_of(args.x);
  std::size_t const bytes = output_bytes_of(args);
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
  guarded_call(signals_, {slots_.rank(), "low_latency/combine"}, [&] {
    FlagWait wait = combine_wait(use, slots_.ready(slots_.rank(), use.frame), "low_latency/combine");
    wait.wait_ns = args.wait_ns_per_source;
    await_flags(wait);
    check_digests(wait, of(use).combine_digest, "layout, dtype and coding");
    SumRows(*this, args, use).run(workers);
    of(use).combine_received = true;
  });
}

}  // namespace switchyard::cpu
