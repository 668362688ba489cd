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
#include "call/hosted/call_tally.hpp"
#include "call/hosted/calls.hpp"
#include "call/hosted/row_partners.hpp"
#include "call/hosted/row_totals.hpp"
#include "control/peer_waits.hpp"

namespace switchyard {

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

Destination destination_at(std::byte* block, ReceiveShape const& shape) {
  ReceiveBlock const parts = receive_block(shape);
  return {.x = block + parts.x,
          .scales = block + parts.scales,
          .topk_idx = block + parts.topk_idx,
          .topk_weights = block + parts.topk_weights,
          .source_token = block + parts.source_token};
}

// One dispatch on one rank.
class DispatchRun {
 public:
  DispatchRun(HostedCalls& engine, DispatchCall& call)
      : engine_(engine),
        call_(call),
        tally_(engine.counter_),
        link_(engine.link(tally_.wait_ns(&CallCounts::dispatch_wait_ns))),
        routing_(*call.routing),
        fresh_(call.fresh.get()),
        epoch_(++engine.epoch_),
        crossing_(engine.crossing_.get()) {}

  void run() {
    if (!crossing_) offer();
    announce();
    if (!cached()) place_sources();
    if (crossing_ || !take_offers()) {
      answer();
      collect();
    }
    place();
    meet_row_partners(link_, routing_, &ControlArea::arrived, epoch_, "dispatch/arrive");
    if (crossing_) end_between();
    tally_.end_dispatch(routing_, call_.shape);
  }

 private:
  void end_between() {
    // By now no rank of this node writes any more into blocks that the others are about to release.
    if (auto const& refused = crossing_->refused()) refuse(*refused);
    crossing_->finish(link_.signals, "dispatch/arrive");
    // The routing is complete: combines and cached dispatches may use it.
    if (!cached()) fresh_->dispatch = epoch_;
  }

  [[nodiscard]] bool cached() const { return fresh_ == nullptr; }
  [[nodiscard]] bool expanded() const { return routing_.layout == OutputLayout::expanded; }
  // The number in the job of a rank of this node.
  [[nodiscard]] int in_job(int local_rank) const { return link_.job.rank_of(local_rank); }
  [[nodiscard]] int self() const { return in_job(link_.rank); }
  [[nodiscard]] std::size_t slots_of(int local_rank) const {
    return 1 + static_cast<std::size_t>(engine_.experts_.count(in_job(local_rank)));
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
      call_.block = engine_.mover_.take(bytes);
      offered_ = call_.block.has_value();
    }
    if (call_.block) offered_rows_ = *rows;
  }

  // Writes into every control block of the node how many rows its rank, and all others, will get from this rank.
  void send_counts() {
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      auto const counts = link_.control.counts(peer, link_.rank, epoch_);
      if (!crossing_)
        std::ranges::copy(routing_.table.rows_per_rank, link_.control.totals(peer, link_.rank, epoch_).begin());
      counts[0] = routing_.table.rows_per_rank[static_cast<std::size_t>(in_job(peer))];
      auto const first = static_cast<std::size_t>(engine_.experts_.first(in_job(peer)));
      bool const by_expert = !routing_.table.slots_per_expert.empty();
      for (std::size_t slot = 1; slot < slots_of(peer); ++slot) {
        counts[slot] = by_expert ? routing_.table.slots_per_expert[first + slot - 1] : 0;
      }
    }
  }

  // The same for a rank of another node, which this one serves.
  void pass_on_counts(int served, scale_out::NodeCounts const& from) {
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      auto const counts = link_.control.counts(peer, link_.rank, epoch_, served);
      counts[0] = from.rows[static_cast<std::size_t>(peer)];
      auto const first = static_cast<std::size_t>(crossing_->own_experts().first(peer));
      for (std::size_t slot = 1; slot < slots_of(peer); ++slot) counts[slot] = from.slots[first + slot - 1];
    }
  }

  // Hears what ranks of other nodes were asked, and returns whether there is trouble.
  bool open_between(CallTerms const& terms) {
    CrossingCall const between{.epoch = epoch_,
                               .phase = "dispatch/open",
                               .terms = terms,
                               .refusal = call_.refusal,
                               .ended = &ControlArea::arrived,
                               .counted = cached() ? nullptr : &routing_.to_nodes,
                               .top_k = static_cast<int>(routing_.top_k),
                               .max_tokens = engine_.options_.max_tokens};
    auto const letters = crossing_->open(link_, between);
    if (crossing_->pass_on(link_, between, letters)) return true;
    if (cached() || call_.refusal) return false;
    for (std::size_t i = 0; i < letters.size(); ++i) {
      if (!letters[i].counts) fail_broken(crossing_->served()[i].rank, "counts", 0, 0);
      pass_on_counts(static_cast<int>(i) + 1, letters[i].counts->counts);
      placed_.push_back({.counts = letters[i].counts->counts});
    }
    return false;
  }

  void announce() {
    TraceScope const span("dispatch/announce", link_.rank);
    CallTerms const terms = terms_of(call_);
    bool const trouble = crossing_ && open_between(terms);
    if (!call_.refusal && !cached()) send_counts();
    bool const offers = offered_rows_ >= 0;
    Announcement const announcement{.epoch = epoch_,
                                    .phase = "dispatch/announce",
                                    .terms = terms,
                                    .refusal = call_.refusal,
                                    .trouble = trouble,
                                    .block_offset = offers ? static_cast<std::int64_t>(call_.block->offset) : -1,
                                    .block_rows = offered_rows_};
    if (crossing_) return crossing_->announce(link_, announcement);
    open_call(link_, announcement);
  }

  // Sums up the sources' counts into this rank's placement.
  void place_sources() {
    std::size_t const slots = slots_of(link_.rank);
    std::vector<std::int64_t> counts;
    for (int source = 0; source < link_.job.num_ranks(); ++source) {
      auto const [passer, served] = link_.job.served().place_of(source);
      auto const row = link_.control.counts(link_.rank, passer, epoch_, served).first(slots);
      counts.insert(counts.end(), row.begin(), row.end());
    }
    std::int64_t const max_count = engine_.options_.max_tokens * std::max<std::int64_t>(routing_.top_k, 1);
    PlacementProblem const problem{.layout = routing_.layout,
                                   .num_ranks = link_.job.num_ranks(),
                                   .local_experts = engine_.experts_.count(self()),
                                   .expert_alignment = routing_.expert_alignment,
                                   .counts = counts};
    checked([&] { fresh_->placement = place_rows(problem, max_count); });
    fresh_->received_counts = std::move(counts);
  }

  // What is wrong with counts only this rank has seen, so the peers must learn of it.
  template <typename Step>
  void checked(Step const& step) {
    try {
      step();
    } catch (InvalidArgument const& error) {
      link_.signals.fail(SystemError(error.what(), {.rank = self(), .phase = "dispatch/answer"}));
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
    prepare_destinations();
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
        cached() ? routing_.rows_of_rank[static_cast<std::size_t>(self())] : routing_.placement.rows;
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
    call_.block = engine_.mover_.take(bytes);
    if (call_.block) return std::nullopt;
    return no_room(*engine_.heap_, bytes, fmt::format("{} rows received", rows));
  }

  void answer() {
    TraceScope const span("dispatch/answer", link_.rank);
    auto const refusal = make_block();
    std::size_t const slots = slots_of(link_.rank);
    for (int passer = 0; passer < link_.num_ranks; ++passer) {
      Answer& to = link_.control.answer(passer, link_.rank);
      to.status = refusal ? static_cast<std::uint32_t>(refusal->code) : 0;
      to.block_offset = call_.block ? call_.block->offset : 0;
      to.rows = call_.shape.rows;
      put_text(to.text, sizeof to.text, refusal ? refusal->text : "");
      auto const sources = link_.job.served().of(passer);
      for (std::size_t served = 0; served < sources.size(); ++served) {
        auto const starts =
            std::span(routing_.placement.starts).subspan(static_cast<std::size_t>(sources[served]) * slots, slots);
        std::ranges::copy(starts, link_.control.starts(passer, link_.rank, static_cast<int>(served)).begin());
      }
      link_.signals.publish(passer, to.epoch, epoch_);  // pairs with the wait in collect()
    }
  }

  // Waits for the answers of all receivers: where this rank's rows go.
  void collect() {
    TraceScope const span("dispatch/collect", link_.rank);
    await_peers(link_, epoch_, "dispatch/collect",
                [this](int peer) { return &link_.control.answer(link_.rank, peer).epoch; });
    auto const refusal = find_refusal();
    if (crossing_) {
      crossing_->send_verdict(link_.signals, "dispatch/collect", refusal);
      if (refusal) await_other_verdicts();
    }
    if (refusal) refuse(*refusal);
    prepare_destinations();
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      // Read once, so that what was checked is what is used.
      Answer const& from = link_.control.answer(link_.rank, peer);
      locate(peer, {from.block_offset, from.rows});
    }
    if (cached()) return;
    for (std::size_t served = 0; served < placed_.size(); ++served) check_first_rows(served);
    resolve_rows([&](int peer) { return answered_starts(peer, 0); });
  }

  // Other nodes may refuse, too.
  [[noreturn]] void await_other_verdicts() {
    crossing_->await_verdicts(link_.signals, "dispatch/collect");
    refuse(*crossing_->refused());
  }

  // The first receiver of this node that has no place for its result.
  [[nodiscard]] std::optional<Crossing::Verdict> find_refusal() const {
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      Answer const& from = link_.control.answer(link_.rank, peer);
      if (from.status == 0) continue;
      return Crossing::Verdict{
          .rank = in_job(peer),
          .refusal = {static_cast<ErrorCode>(from.status),
                      fmt::format("rank {}: {}", in_job(peer), get_text(from.text, sizeof from.text))}};
    }
    return std::nullopt;
  }

  [[noreturn]] static void refuse(Crossing::Verdict const& verdict) {
    throw_error(verdict.refusal.code, verdict.refusal.text, {.rank = verdict.rank, .phase = "dispatch/answer"});
  }

  [[nodiscard]] std::vector<std::int64_t> answered_starts(int peer, int served) const {
    auto const answered = link_.control.starts(link_.rank, peer, served).first(slots_of(peer));
    return {answered.begin(), answered.end()};
  }

  // Where rows go that come from a rank of another node.
  void check_first_rows(std::size_t served) {
    FirstRows& starts = first_rows_.emplace_back();
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      starts.push_back(answered_starts(peer, static_cast<int>(served) + 1));
      auto const& counts = placed_[served].counts;
      auto const first = static_cast<std::size_t>(crossing_->own_experts().first(peer));
      check_starts(peer, starts.back(), [&](std::size_t slot) -> std::int64_t {
        return slot == 0 ? counts.rows[static_cast<std::size_t>(peer)] : counts.slots[first + slot - 1];
      });
    }
  }

  // By rank of the job; ranks of other nodes have no place here.
  void prepare_destinations() {
    destinations_.assign(static_cast<std::size_t>(link_.job.num_ranks()), {});
    if (!cached()) fresh_->rows_of_rank.assign(static_cast<std::size_t>(link_.job.num_ranks()), 0);
  }

  void locate(int peer, Offer const& place) {
    auto const [offset, rows] = place;
    auto const index = static_cast<std::size_t>(in_job(peer));
    ReceiveShape shape = call_.shape;
    shape.rows = rows;
    std::size_t const heap_bytes = engine_.heap_->heap_bytes(peer);
    std::size_t const row_bytes = std::max<std::size_t>(shape.row_bytes, 1);
    bool const sane = rows >= 0 && rows <= most_rows && static_cast<std::size_t>(rows) <= heap_bytes / row_bytes &&
                      offset <= heap_bytes && receive_block(shape).bytes <= heap_bytes - offset &&
                      (!cached() || rows == routing_.rows_of_rank[index]);
    if (!sane) fail_broken(in_job(peer), "block", static_cast<std::int64_t>(offset), rows);
    Destination to = destination_at(engine_.heap_->heap(peer) + offset, shape);
    to.first_expert = engine_.experts_.first(in_job(peer));
    to.local_experts = engine_.experts_.count(in_job(peer));
    destinations_[index] = to;
    if (!cached()) fresh_->rows_of_rank[index] = rows;
  }

  [[noreturn]] void fail_broken(int rank, char const* what, std::int64_t seen, std::int64_t rows) {
    link_.signals.fail(
        SystemError(fmt::format("rank {}: what rank {} said of its block is broken: {} {} with {} rows", self(),
                                rank, what, seen, rows),
                    {.rank = self(), .peer = rank, .phase = "dispatch/collect"}));
  }

  // Turns row numbers within a stream into rows of the receiver's result, for receivers of this node. `starts_at`:
  // the first row of each of this rank's streams at a peer.
  template <typename StartsAt>
  void resolve_rows(StartsAt const& starts_at) {
    std::vector<std::vector<std::int64_t>> starts(static_cast<std::size_t>(link_.job.num_ranks()));
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      auto const rank = static_cast<std::size_t>(in_job(peer));
      starts[rank] = starts_at(peer);
      auto const first = static_cast<std::size_t>(engine_.experts_.first(in_job(peer)));
      check_starts(peer, starts[rank], [&](std::size_t slot) {
        return slot == 0 ? routing_.table.rows_per_rank[rank] : routing_.table.slots_per_expert[first + slot - 1];
      });
    }
    for (Route& route : fresh_->table.routes) {
      auto const& of_rank = starts[static_cast<std::size_t>(route.rank)];
      if (of_rank.empty()) continue;  // its row is for the node to find that has it
      std::size_t const stream =
          expanded() ? static_cast<std::size_t>(1 + route.expert - engine_.experts_.first(route.rank)) : 0;
      route.row += static_cast<std::int32_t>(of_rank[stream]);
    }
    if (!crossing_)
      fresh_->dispatch = epoch_;  // the routing is complete: combines and cached dispatches may use it
  }

  // A start that came from outside must leave room for every row that will be written from it. `count_of(slot)`:
  // how many rows that stream has.
  template <typename CountOf>
  void check_starts(int peer, std::span<std::int64_t const> starts, CountOf const& count_of) {
    std::int64_t const rows = routing_.rows_of_rank[static_cast<std::size_t>(in_job(peer))];
    for (std::size_t slot = expanded() ? 1 : 0; slot < (expanded() ? slots_of(peer) : 1); ++slot) {
      std::int64_t const count = count_of(slot);
      if (starts[slot] < 0 || count > rows || starts[slot] > rows - count)
        fail_broken(in_job(peer), "start", starts[slot], rows);
    }
  }

  void place() {
    if (call_.when_placed) call_.when_placed();
    engine_.mover_.place({.signals = link_.signals,
                          .crossing = crossing_,
                          .call = call_,
                          .destinations = destinations_,
                          .first_rows = first_rows_,
                          .placed = cached() || !crossing_ ? nullptr : &placed_,
                          .rank = self(),
                          .epoch = epoch_,
                          .max_tokens = engine_.options_.max_tokens});
    if (crossing_ && !cached()) fresh_->served = std::move(placed_);
  }

  HostedCalls& engine_;
  DispatchCall& call_;
  CallTally tally_;
  Link link_;
  detail::Routing const& routing_;
  detail::Routing* fresh_;  // the same object, which this call fills in; null when cached
  std::uint64_t epoch_;
  Crossing* crossing_;                           // null in a job of one node
  std::vector<Destination> destinations_;        // by rank of the job
  std::vector<scale_out::ServedTokens> placed_;  // by rank of another node that this one serves
  std::vector<FirstRows> first_rows_;            // the same
  bool offered_ = false;                         // the call's block was taken to be offered
  std::int64_t offered_rows_ = -1;               // -1: none
};

void HostedCalls::dispatch(DispatchCall& call) {
  run_call("dispatch", [&] { DispatchRun(*this, call).run(); });
}

}  // namespace switchyard
