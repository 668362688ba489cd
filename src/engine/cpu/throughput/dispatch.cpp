// Throughput dispatch: all ranks announce the call, and offer a block for their results if that can be done
// beforehand; where offers do not fit, each receiver answers where rows go. Sources place them, and flags say that
// they have arrived.
#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "base/check.hpp"
#include "base/trace.hpp"
#include "call/heap_tensors.hpp"
#include "engine/cpu/throughput/engine.hpp"
#include "engine/cpu/throughput/place.hpp"
#include "engine/cpu/throughput/row_partners.hpp"
#include "engine/cpu/throughput/row_totals.hpp"
#include "engine/cpu/token_chunks.hpp"

namespace switchyard::cpu {

namespace {

// Row numbers are 32 bits wide.
constexpr std::int64_t most_rows = std::numeric_limits<std::int32_t>::max();
// Room for more than arrives is taken from the heap only for calls in which the time of a round counts. Larger
// results would land where the heap is not warm.
constexpr std::size_t most_offered = std::size_t{32} << 20;
// A block is offered that takes a fourth of the largest free range at most.
constexpr std::size_t least_left = 4;
// What a rank with fewer tokens takes for granted that the others send.
constexpr std::int64_t least_offered_tokens = 16;

}  // namespace

// One dispatch on one rank.
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
    offer();
    announce();
    if (!cached()) place_sources();
    if (!take_offers()) {
      answer();
      collect();
    }
    place();
    meet_row_partners(link_, routing_, &ControlArea::arrived, epoch_, "dispatch/arrive");
  }

 private:
  [[nodiscard]] bool cached() const { return fresh_ == nullptr; }
  [[nodiscard]] bool expanded() const { return routing_.layout == OutputLayout::expanded; }
  [[nodiscard]] std::size_t slots_of(int rank) const {
    return 1 + static_cast<std::size_t>(engine_.experts_.count(rank));
  }

  // How many rows the own result may get, as far as this rank can know now; nothing where it takes no block before
  // it has heard from all.
  [[nodiscard]] std::optional<std::int64_t> rows_to_offer() const {
    if (cached()) return routing_.rows_of_rank[static_cast<std::size_t>(link_.rank)];
    if (expanded()) return std::nullopt;  // the first rows follow from counts that only receivers have
    if (call_.block) return call_.shape.rows;
    std::int64_t const tokens =
        std::max(routing_.num_tokens, std::min(least_offered_tokens, engine_.options_.max_tokens));
    ReceiveShape shape = call_.shape;
    shape.rows = tokens * link_.num_ranks;
    if (shape.rows > most_rows || receive_block(shape).bytes > most_offered) return std::nullopt;
    return shape.rows;
  }

  // Takes a block for the result beforehand.
  void offer() {
    if (call_.refusal) return;
    auto const rows = rows_to_offer();
    if (!rows) return;
    if (!call_.block) {
      ReceiveShape shape = call_.shape;
      shape.rows = *rows;
      std::size_t const bytes = receive_block(shape).bytes;
      // Others may want memory meanwhile.
      if (bytes > engine_.heap_->allocator().largest_free() / least_left) return;
      call_.block = engine_.heap_->allocate(bytes);
      offered_ = call_.block.has_value();
    }
    if (call_.block) offered_rows_ = *rows;
  }

  // Writes into every rank's control block how many rows it and all others will get from this rank.
  void send_counts() {
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      auto const counts = link_.control.counts(peer, link_.rank, epoch_);
      std::ranges::copy(routing_.table.rows_per_rank, link_.control.totals(peer, link_.rank, epoch_).begin());
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
    bool const offers = offered_rows_ >= 0;
    open_call(link_, {.epoch = epoch_,
                      .phase = "dispatch/announce",
                      .terms = terms_of(call_),
                      .refusal = call_.refusal,
                      .block_offset = offers ? static_cast<std::int64_t>(call_.block->offset) : -1,
                      .block_rows = offered_rows_});
  }

  // Sums up the sources' counts into this rank's placement.
  void place_sources() {
    std::size_t const slots = slots_of(link_.rank);
    std::vector<std::int64_t> counts;
    for (int source = 0; source < link_.num_ranks; ++source) {
      auto const row = link_.control.counts(link_.rank, source, epoch_).first(slots);
      counts.insert(counts.end(), row.begin(), row.end());
    }
    std::int64_t const max_count = engine_.options_.max_tokens * std::max<std::int64_t>(routing_.top_k, 1);
    PlacementProblem const problem{.layout = routing_.layout,
                                   .num_ranks = link_.num_ranks,
                                   .local_experts = engine_.experts_.count(link_.rank),
                                   .expert_alignment = routing_.expert_alignment,
                                   .counts = counts};
    checked([&] { fresh_->placement = place_rows(problem, max_count); });
  }

  // What is wrong with counts only this rank has seen, so the peers must learn of it.
  template <typename Step>
  void checked(Step const& step) {
    try {
      step();
    } catch (InvalidArgument const& error) {
      link_.signals.fail(SystemError(error.what(), {.rank = link_.rank, .phase = "dispatch/answer"}));
    }
  }

  // Where a peer offers a block, and the rows of its result.
  struct Offer {
    std::uint64_t offset = 0;
    std::int64_t rows = 0;
  };

  // The offers of all ranks, if every result fits. All ranks see the same numbers, so all or none take the offers.
  std::optional<std::vector<Offer>> find_offers(std::optional<RowTotals> const& totals) const {
    std::vector<Offer> offers;
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      Announce const& from = link_.control.announce(link_.rank, peer, epoch_);
      std::int64_t const rows =
          cached() ? routing_.rows_of_rank[static_cast<std::size_t>(peer)] : totals->rows_of(peer);
      if (rows > from.block_rows) return std::nullopt;
      bool const worst = !cached() && call_.args.num_worst_tokens > 0;
      offers.push_back({static_cast<std::uint64_t>(from.block_offset), worst ? from.block_rows : rows});
    }
    return offers;
  }

  // Returns false when there is a rank whose result does not fit into what it offers; then all ranks must answer.
  bool take_offers() {
    TraceScope const span("dispatch/offers", link_.rank);
    std::optional<RowTotals> totals;
    std::optional<std::vector<Offer>> offers;
    if (cached() || !expanded()) {
      if (!cached()) checked([&] { totals.emplace(link_, epoch_, engine_.options_.max_tokens); });
      offers = find_offers(totals);
    }
    if (!offers) {
      if (offered_) call_.block.reset();  // nobody writes there
      offered_ = false;
      return false;
    }
    if (offered_) shorten_block((*offers)[static_cast<std::size_t>(link_.rank)].rows);
    if (!cached()) fresh_->rows_of_rank.clear();
    for (int peer = 0; peer < link_.num_ranks; ++peer) locate(peer, (*offers)[static_cast<std::size_t>(peer)]);
    if (!cached()) resolve_rows([&](int peer) { return std::vector{totals->first_row(link_.rank, peer)}; });
    return true;
  }

  void shorten_block(std::int64_t rows) {
    if (!cached() && rows != routing_.placement.rows)
      fail_broken(link_.rank, "rows", rows, routing_.placement.rows);
    call_.shape.rows = rows;
    engine_.heap_->trim(*call_.block, receive_block(call_.shape).bytes);
  }

  // Takes the block for the result, or returns why it cannot be had.
  std::optional<Refusal> make_block() {
    // A cached dispatch has as many rows as the handle's own dispatch, which may have been in worst-case mode.
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

  // Waits for the answers of all receivers: where this rank's rows go.
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
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      // Read once, so that what was checked is what is used.
      Answer const& from = link_.control.answer(link_.rank, peer);
      locate(peer, {from.block_offset, from.rows});
    }
    if (cached()) return;
    resolve_rows([&](int peer) {
      auto const answered = link_.control.starts(link_.rank, peer).first(slots_of(peer));
      return std::vector(answered.begin(), answered.end());
    });
  }

  void locate(int peer, Offer const& place) {
    auto const [offset, rows] = place;
    auto const index = static_cast<std::size_t>(peer);
    ReceiveShape shape = call_.shape;
    shape.rows = rows;
    std::size_t const heap_bytes = engine_.heap_->heap_bytes(peer);
    std::size_t const row_bytes = std::max<std::size_t>(shape.row_bytes, 1);
    bool const sane = rows >= 0 && rows <= most_rows && static_cast<std::size_t>(rows) <= heap_bytes / row_bytes &&
                      offset <= heap_bytes && receive_block(shape).bytes <= heap_bytes - offset &&
                      (!cached() || rows == routing_.rows_of_rank[index]);
    if (!sane) fail_broken(peer, "block", static_cast<std::int64_t>(offset), rows);
    Destination to = destination_at(engine_.heap_->heap(peer) + offset, shape);
    to.first_expert = engine_.experts_.first(peer);
    to.local_experts = engine_.experts_.count(peer);
    destinations_.push_back(to);
    if (!cached()) fresh_->rows_of_rank.push_back(rows);
  }

  [[noreturn]] void fail_broken(int peer, char const* what, std::int64_t seen, std::int64_t rows) {
    link_.signals.fail(
        SystemError(fmt::format("rank {}: what rank {} said of its block is broken: {} {} with {} rows", link_.rank,
                                peer, what, seen, rows),
                    {.rank = link_.rank, .peer = peer, .phase = "dispatch/collect"}));
  }

  // Turns row numbers within a stream into rows of the receiver's result. `starts_at`: the first row of each of
  // this rank's streams at a peer.
  template <typename StartsAt>
  void resolve_rows(StartsAt const& starts_at) {
    std::vector<std::vector<std::int64_t>> starts;
    for (int peer = 0; peer < link_.num_ranks; ++peer) check_starts(peer, starts.emplace_back(starts_at(peer)));
    for (Route& route : fresh_->table.routes) {
      std::size_t const stream =
          expanded() ? static_cast<std::size_t>(1 + route.expert - engine_.experts_.first(route.rank)) : 0;
      route.row += static_cast<std::int32_t>(starts[static_cast<std::size_t>(route.rank)][stream]);
    }
    fresh_->dispatch = epoch_;  // the routing is complete: combines and cached dispatches may use it
  }

  // A start that came from outside must leave room for every row that will be written from it.
  void check_starts(int peer, std::span<std::int64_t const> starts) {
    std::int64_t const rows = routing_.rows_of_rank[static_cast<std::size_t>(peer)];
    auto const first = static_cast<std::size_t>(engine_.experts_.first(peer));
    for (std::size_t slot = expanded() ? 1 : 0; slot < (expanded() ? slots_of(peer) : 1); ++slot) {
      std::int64_t const count = expanded() ? routing_.table.slots_per_expert[first + slot - 1]
                                            : routing_.table.rows_per_rank[static_cast<std::size_t>(peer)];
      if (starts[slot] < 0 || count > rows || starts[slot] > rows - count)
        fail_broken(peer, "start", starts[slot], rows);
    }
  }

  void place() {
    RowWriter const writer(call_, destinations_);
    writer.fill_padding(destinations_[static_cast<std::size_t>(link_.rank)]);
    TokenChunks chunks(routing_.num_tokens);
    engine_.pool_.run(call_.workers, [&](int worker) {
      TraceScope const span("dispatch/place", link_.rank, worker);
      writer.write(chunks);
    });
  }

  Engine& engine_;
  DispatchCall& call_;
  Link link_;
  detail::Routing const& routing_;
  detail::Routing* fresh_;  // the same object, which this call fills in; null when cached
  std::uint64_t epoch_;
  std::vector<Destination> destinations_;
  bool offered_ = false;            // the call's block was taken to be offered
  std::int64_t offered_rows_ = -1;  // -1: none
};

void Engine::dispatch(DispatchCall& call) {
  run_call("dispatch", [&] { DispatchRun(*this, call).run(); });
}

}  // namespace switchyard::cpu
