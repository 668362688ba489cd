// Throughput dispatch: announce, answer, place, arrive.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "base/check.hpp"
#include "base/trace.hpp"
#include "call/heap_tensors.hpp"
#include "engine/cpu/row_loader.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "engine/cpu/throughput/engine.hpp"
#include "engine/cpu/token_chunks.hpp"

namespace switchyard::cpu {

namespace {

// Where a destination's result lies, as this source sees it.
struct Destination {
  std::byte* x = nullptr;
  std::byte* scales = nullptr;
  std::byte* topk_idx = nullptr;
  std::byte* topk_weights = nullptr;
  std::byte* source_token = nullptr;
  int first_expert = 0;
  int local_experts = 0;
};

Destination destination_at(std::byte* block, ReceiveShape const& shape) {
  ReceiveBlock const parts = receive_block(shape);
  return {.x = block + parts.x,
          .scales = block + parts.scales,
          .topk_idx = block + parts.topk_idx,
          .topk_weights = block + parts.topk_weights,
          .source_token = block + parts.source_token};
}

// Row numbers are 32 bits wide.
constexpr std::int64_t most_rows = std::numeric_limits<std::int32_t>::max();

template <typename T>
void store_at(std::byte* base, std::int64_t index, T value) noexcept {
  std::memcpy(base + static_cast<std::size_t>(index) * sizeof(T), &value, sizeof(T));
}

}  // namespace

// One dispatch on one rank: its phases in order.
class DispatchRun {
 public:
  DispatchRun(Engine& engine, DispatchCall& call)
      : engine_(engine),
        call_(call),
        link_(engine.link()),
        routing_(*call.routing),
        fresh_(call.fresh.get()),
        epoch_(++engine.epoch_) {}

  void run() {
    announce();
    answer();
    collect();
    fill_padding();
    place();
    arrive();
  }

 private:
  [[nodiscard]] bool cached() const { return fresh_ == nullptr; }
  [[nodiscard]] bool expanded() const { return routing_.layout == OutputLayout::expanded; }
  [[nodiscard]] std::size_t slots_of(int rank) const {
    return 1 + static_cast<std::size_t>(engine_.experts_.count(rank));
  }

  // Tells every receiver how many rows it will get from here.
  void send_counts() {
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      auto const counts = link_.control.counts(peer, link_.rank);
      counts[0] = routing_.table.rows_per_rank[static_cast<std::size_t>(peer)];
      auto const first = static_cast<std::size_t>(engine_.experts_.first(peer));
      bool const by_expert = !routing_.table.slots_per_expert.empty();
      for (std::size_t slot = 1; slot < slots_of(peer); ++slot) {
        counts[slot] = by_expert ? routing_.table.slots_per_expert[first + slot - 1] : 0;
      }
    }
  }

  void announce() {
    TraceScope const span("dispatch/announce", link_.rank);
    if (!call_.refusal && !cached()) send_counts();
    open_call(link_,
              {.epoch = epoch_, .phase = "dispatch/announce", .terms = terms_of(call_), .refusal = call_.refusal});
  }

  // Sums up the sources' counts into this rank's placement.
  void place_sources() {
    std::size_t const slots = slots_of(link_.rank);
    std::vector<std::int64_t> counts;
    for (int source = 0; source < link_.num_ranks; ++source) {
      auto const row = link_.control.counts(link_.rank, source).first(slots);
      counts.insert(counts.end(), row.begin(), row.end());
    }
    std::int64_t const max_count = engine_.options_.max_tokens * std::max<std::int64_t>(routing_.top_k, 1);
    PlacementProblem const problem{.layout = routing_.layout,
                                   .num_ranks = link_.num_ranks,
                                   .local_experts = engine_.experts_.count(link_.rank),
                                   .expert_alignment = routing_.expert_alignment,
                                   .counts = counts};
    try {
      fresh_->placement = place_rows(problem, max_count);
    } catch (InvalidArgument const& error) {
      // Only this rank saw it: the peers must be told.
      link_.signals.fail(SystemError(error.what(), {.rank = link_.rank, .phase = "dispatch/answer"}));
    }
  }

  // The block for the result, or why it cannot be had.
  std::optional<Refusal> make_block() {
    // A result along a handle has the rows of the handle's own, which may have been of the worst case.
    std::int64_t const rows =
        cached() ? routing_.rows_of_rank[static_cast<std::size_t>(link_.rank)] : routing_.placement.rows;
    if (rows > most_rows) {
      return Refusal{ErrorCode::invalid_argument,
                     fmt::format("rows received: expected at most {}, seen {}", most_rows, rows)};
    }
    if (call_.block) {
      if (rows <= call_.shape.rows) return std::nullopt;
      return Refusal{
          ErrorCode::invalid_argument,
          fmt::format("num_worst_tokens: expected at least {} (rows received), seen {}", rows, call_.shape.rows)};
    }
    call_.shape.rows = rows;
    std::size_t const bytes = receive_block(call_.shape).bytes;
    call_.block = engine_.heap_->allocate(bytes);
    if (call_.block) return std::nullopt;
    return no_room(*engine_.heap_, bytes, fmt::format("{} rows received", rows));
  }

  void answer() {
    TraceScope const span("dispatch/answer", link_.rank);
    if (!cached()) place_sources();
    auto const refusal = make_block();
    std::size_t const slots = slots_of(link_.rank);
    for (int source = 0; source < link_.num_ranks; ++source) {
      Answer& to = link_.control.answer(source, link_.rank);
      to.status = refusal ? static_cast<std::uint32_t>(refusal->code) : 0;
      to.block_offset = call_.block ? call_.block->offset : 0;
      to.rows = call_.shape.rows;
      put_text(to.text, sizeof to.text, refusal ? refusal->text : "");
      auto const starts =
          std::span(routing_.placement.starts).subspan(static_cast<std::size_t>(source) * slots, slots);
      std::ranges::copy(starts, link_.control.starts(source, link_.rank).begin());
      link_.signals.publish(source, to.epoch, epoch_);  // pairs with the wait in collect()
    }
  }

  // Learns from every receiver where this rank's rows go.
  void collect() {
    TraceScope const span("dispatch/collect", link_.rank);
    Deadline const deadline = link_.signals.deadline();
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      link_.signals.wait(link_.control.answer(link_.rank, peer).epoch, {peer, epoch_, "dispatch/collect"},
                         deadline);
    }
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      Answer const& from = link_.control.answer(link_.rank, peer);
      if (from.status == 0) continue;
      throw_error(static_cast<ErrorCode>(from.status),
                  fmt::format("rank {}: {}", peer, get_text(from.text, sizeof from.text)),
                  {.rank = peer, .phase = "dispatch/answer"});
    }
    if (!cached()) fresh_->rows_of_rank.clear();
    for (int peer = 0; peer < link_.num_ranks; ++peer) locate(peer);
    if (!cached()) resolve_rows();
  }

  // The peer's answer is read once: what was checked is what is used.
  void locate(int peer) {
    Answer const& from = link_.control.answer(link_.rank, peer);
    std::int64_t const rows = from.rows;
    std::uint64_t const offset = from.block_offset;
    auto const index = static_cast<std::size_t>(peer);
    ReceiveShape shape = call_.shape;
    shape.rows = rows;
    std::size_t const heap_bytes = engine_.heap_->heap_bytes(peer);
    std::size_t const row_bytes = std::max<std::size_t>(shape.row_bytes, 1);
    bool const sane = rows >= 0 && rows <= most_rows && static_cast<std::size_t>(rows) <= heap_bytes / row_bytes &&
                      offset <= heap_bytes && receive_block(shape).bytes <= heap_bytes - offset &&
                      (!cached() || rows == routing_.rows_of_rank[index]);
    if (!sane) broken_answer(peer, "block", static_cast<std::int64_t>(offset), rows);
    Destination to = destination_at(engine_.heap_->heap(peer) + offset, shape);
    to.first_expert = engine_.experts_.first(peer);
    to.local_experts = engine_.experts_.count(peer);
    destinations_.push_back(to);
    if (!cached()) fresh_->rows_of_rank.push_back(rows);
  }

  [[noreturn]] void broken_answer(int peer, char const* what, std::int64_t seen, std::int64_t rows) {
    link_.signals.fail(SystemError(
        fmt::format("rank {}: answer of rank {} is broken: {} {} with {} rows", link_.rank, peer, what, seen, rows),
        {.rank = link_.rank, .peer = peer, .phase = "dispatch/collect"}));
  }

  // Row within a stream -> row of the receiver's result.
  void resolve_rows() {
    std::vector<std::vector<std::int64_t>> starts;
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      auto const told = link_.control.starts(link_.rank, peer).first(slots_of(peer));
      check_starts(peer, starts.emplace_back(told.begin(), told.end()));
    }
    for (Route& route : fresh_->table.routes) {
      std::size_t const stream =
          expanded() ? static_cast<std::size_t>(1 + route.expert - engine_.experts_.first(route.rank)) : 0;
      route.row += static_cast<std::int32_t>(starts[static_cast<std::size_t>(route.rank)][stream]);
    }
    fresh_->dispatch = epoch_;  // complete: combines and cached dispatches may use it
  }

  // A start that came from outside must leave room for every row that will be written from it.
  void check_starts(int peer, std::span<std::int64_t const> starts) {
    std::int64_t const rows = routing_.rows_of_rank[static_cast<std::size_t>(peer)];
    auto const first = static_cast<std::size_t>(engine_.experts_.first(peer));
    for (std::size_t slot = expanded() ? 1 : 0; slot < (expanded() ? slots_of(peer) : 1); ++slot) {
      std::int64_t const count = expanded() ? routing_.table.slots_per_expert[first + slot - 1]
                                            : routing_.table.rows_per_rank[static_cast<std::size_t>(peer)];
      if (starts[slot] < 0 || count > rows || starts[slot] > rows - count)
        broken_answer(peer, "start", starts[slot], rows);
    }
  }

  void fill_padding_row(Destination const& own, std::int64_t row) {
    auto const at = static_cast<std::size_t>(row);
    store_at<std::int32_t>(own.source_token, row, -1);
    std::memset(own.topk_weights + at * call_.shape.weight_bytes, 0, call_.shape.weight_bytes);
    std::memset(own.topk_idx + at * call_.shape.topk_bytes, 0xff, call_.shape.topk_bytes);  // -1 in either width
    if (!call_.args.zero_padding) return;
    std::memset(own.x + at * call_.shape.row_bytes, 0, call_.shape.row_bytes);
    std::memset(own.scales + at * call_.shape.scale_bytes, 0, call_.shape.scale_bytes);
  }

  // Rows of the own result that no source writes.
  void fill_padding() {
    Destination const& own = destinations_[static_cast<std::size_t>(link_.rank)];
    Placement const& placement = routing_.placement;
    std::int64_t end = 0;
    if (expanded()) {
      for (std::size_t expert = 0; expert < placement.tokens_per_expert.size(); ++expert) {
        std::int64_t const next = end + placement.tokens_per_expert[expert];
        for (std::int64_t row = end + placement.real_tokens_per_expert[expert]; row < next; ++row)
          fill_padding_row(own, row);
        end = next;
      }
    }
    for (std::int64_t row = placement.rows; row < call_.shape.rows; ++row) fill_padding_row(own, row);
  }

  void store_topk(Destination const& to, Route const& route, std::int64_t token) const {
    ConstTensorView const& ids = call_.args.topk_idx;
    for (std::int64_t slot = 0; slot < routing_.top_k; ++slot) {
      std::int64_t const local = topk_at(ids, token, slot) - to.first_expert;
      bool const ours = local >= 0 && local < to.local_experts;
      std::int64_t const at = route.row * routing_.top_k + slot;
      if (call_.shape.topk_bytes > 0) {
        if (ids.dtype == DType::i64) {
          store_at<std::int64_t>(to.topk_idx, at, ours ? local : -1);
        } else {
          store_at<std::int32_t>(to.topk_idx, at, ours ? static_cast<std::int32_t>(local) : -1);
        }
      }
      if (call_.shape.weight_bytes > 0) {
        store_at<float>(to.topk_weights, at, ours ? weight_at(call_.args.topk_weights, token, slot) : 0.0F);
      }
    }
  }

  // The few bytes beside a row are plain stores. One that misses the cache holds up every store behind it, so
  // their lines are asked for one row ahead: rows of one destination are written in order. Past the block's end
  // it is a hint without effect.
  void prefetch_row(Destination const& to, std::size_t row) const {
    __builtin_prefetch(to.topk_idx + row * call_.shape.topk_bytes, 1);
    __builtin_prefetch(to.topk_weights + row * call_.shape.weight_bytes, 1);
    __builtin_prefetch(to.scales + row * call_.shape.scale_bytes, 1);
    __builtin_prefetch(to.source_token + row * sizeof(std::int32_t), 1);
  }

  void store_row(Route const& route, std::int64_t token, LoadedRow const& row) const {
    Destination const& to = destinations_[static_cast<std::size_t>(route.rank)];
    auto const at = static_cast<std::size_t>(route.row);
    prefetch_row(to, at + 1);
    stream_copy(to.x + at * call_.shape.row_bytes, row.x, call_.shape.row_bytes);
    if (row.scales != nullptr)
      std::memcpy(to.scales + at * call_.shape.scale_bytes, row.scales, call_.shape.scale_bytes);
    store_at<std::int32_t>(to.source_token, route.row, static_cast<std::int32_t>(token));
    if (!call_.args.topk_idx.given()) return;
    if (!expanded()) {
      store_topk(to, route, token);
    } else if (call_.shape.weight_bytes > 0) {
      store_at<float>(to.topk_weights, route.row, weight_at(call_.args.topk_weights, token, route.slot));
    }
  }

  // Each row is read once and written once to every destination.
  void place_chunks(TokenChunks& chunks, int worker) const {
    TraceScope const span("dispatch/place", link_.rank, worker);
    DispatchArgs const& args = call_.args;
    RowLoader loader({args.x, args.scales, args.cast_to_fp8 ? SendCast::fp8 : SendCast::none});
    chunks.for_each([&](std::int64_t token) {
      auto const routes = routing_.table.of(token);
      if (routes.empty()) return;
      LoadedRow const row = loader.load(token);
      for (Route const& route : routes) store_row(route, token, row);
    });
    store_fence();  // before the release in arrive(), which does not order non-temporal stores
  }

  void place() {
    TokenChunks chunks(routing_.num_tokens);
    engine_.pool_.run(call_.workers, [&](int worker) { place_chunks(chunks, worker); });
  }

  void arrive() {
    TraceScope const span("dispatch/arrive", link_.rank);
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      link_.signals.publish(peer, link_.control.arrived(peer, link_.rank).epoch,
                            epoch_);  // pairs with the wait below
    }
    Deadline const deadline = link_.signals.deadline();
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      link_.signals.wait(link_.control.arrived(link_.rank, peer).epoch, {peer, epoch_, "dispatch/arrive"},
                         deadline);
    }
  }

  Engine& engine_;
  DispatchCall& call_;
  Link link_;
  detail::Routing const& routing_;
  detail::Routing* fresh_;  // where this call fills the routing in; null when cached
  std::uint64_t epoch_;
  std::vector<Destination> destinations_;
};

void Engine::dispatch(DispatchCall& call) {
  run_call("dispatch", [&] { DispatchRun(*this, call).run(); });
}

}  // namespace switchyard::cpu
