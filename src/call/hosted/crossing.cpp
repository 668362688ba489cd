#include "call/hosted/crossing.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/check.hpp"
#include "base/interrupt.hpp"
#include "call/throughput.hpp"

namespace switchyard {

namespace {

// How long this rank still looks for what a neighbour sent before it went: that travels on another connection than
// the end does, and may have to be sent twice. It is seldom waited for: ranks of the same node need not.
constexpr std::chrono::milliseconds after_loss{800};

// How often a wait asks whether its caller has enough of it.
constexpr std::chrono::milliseconds between_looks{50};

scale_out::PortSizes port_sizes(std::vector<scale_out::NodeExperts> const& experts, RingPlan const& rings) {
  std::size_t letter = 0;
  for (auto const& node : experts) letter = std::max(letter, scale_out::most_opening_bytes(node));
  return {.letter_bytes = letter,
          .slot_bytes = rings.chunk_bytes,
          .slots = rings.slots,
          .send_slots = rings.send_slots};
}

}  // namespace

Crossing::Crossing(std::shared_ptr<Job> job, NodeInJob const& node, ExpertSplit const& experts,
                   RingPlan const& rings, scale_out::PinMemory const& pin)
    : job_(std::move(job)),
      node_(node),
      experts_(scale_out::experts_by_node(node.topology(), experts)),
      port_(job_, port_sizes(experts_, rings), pin),
      ways_(scale_out::ways_of(job_->rank(), node_, port_)),
      served_(scale_out::served_by(job_->rank(), node_, port_)),
      blamed_(port_.neighbours().size()),
      decided_(port_.neighbours().size(), false) {}

std::vector<scale_out::Opening> Crossing::open(Link const& link, CrossingCall const& call) {
  Signals& signals = link.signals;
  epoch_ = call.epoch;
  link_ = &link;
  ended_ = call.ended;
  decided_.assign(decided_.size(), false);
  refused_.reset();
  try {
    port_.begin(2 * call.epoch);
    for (scale_out::Way const& way : ways_) send_letter(signals, call, way);
    Patience waiting = patience(signals);
    for (auto missing = missing_letters(); !missing.empty(); missing = missing_letters())
      rest(signals, lost_or_first(missing), call.phase, waiting);
    std::vector<scale_out::Opening> letters;
    for (scale_out::Served const& from : served_) letters.push_back(read_letter(call, from));
    return letters;
  } catch (Error const& error) {
    // What is wrong with a letter only this rank has seen.
    if (signals.has_failed()) throw;
    signals.fail(SystemError(error.what(), {.rank = job_->rank(), .peer = error.peer(), .phase = call.phase}));
  }
}

void Crossing::send_letter(Signals& signals, CrossingCall const& call, scale_out::Way const& way) {
  scale_out::Opening opening{.status = call.refusal ? static_cast<std::uint32_t>(call.refusal->code) : 0,
                             .terms = call.terms.values,
                             .text = call.refusal ? call.refusal->text : ""};
  if (!call.refusal && call.counted != nullptr) {
    opening.counts = scale_out::Notify{.digest = digest_of(call.terms),
                                       .counts = (*call.counted)[static_cast<std::size_t>(way.node)].counts};
  }
  auto const memory = room_for_letter(signals, way.neighbour, call.phase);
  port_.send_letter(way.neighbour, scale_out::write_opening(memory, call.epoch, opening));
}

std::span<std::byte> Crossing::room_for_letter(Signals& signals, int neighbour, char const* phase) {
  Patience waiting = patience(signals);
  auto memory = port_.letter_to(neighbour);
  for (; !memory; memory = port_.letter_to(neighbour)) rest(signals, neighbour, phase, waiting);
  return *memory;
}

// It has the form of an opening, whose first term is the rank. A port sends one letter in each of its calls, so
// this one begins another.
void Crossing::send_verdict(Signals& signals, char const* phase, std::optional<Verdict> const& verdict) {
  port_.begin(2 * epoch_ + 1);
  if (verdict) note_refusal(*verdict);
  scale_out::Opening letter;
  if (verdict) {
    letter.status = static_cast<std::uint32_t>(verdict->refusal.code);
    letter.terms[0] = verdict->rank;
    letter.text = verdict->refusal.text;
  }
  for (std::size_t neighbour = 0; neighbour < decided_.size(); ++neighbour) {
    auto const memory = room_for_letter(signals, static_cast<int>(neighbour), phase);
    port_.send_letter(static_cast<int>(neighbour), scale_out::write_opening(memory, epoch_, letter));
  }
}

void Crossing::await_verdicts(Signals& signals, char const* phase) {
  Patience waiting = patience(signals);
  while (auto const neighbour = first_undecided(signals, phase)) rest(signals, *neighbour, phase, waiting);
}

void Crossing::note_refusal(Verdict const& verdict) {
  if (!refused_ || verdict.rank < refused_->rank) refused_ = verdict;
}

std::optional<int> Crossing::first_undecided(Signals& signals, char const* phase) {
  for (std::size_t neighbour = 0; neighbour < decided_.size(); ++neighbour) {
    if (decided_[neighbour]) continue;
    auto const letter = port_.letter_from(static_cast<int>(neighbour));
    if (!letter) return static_cast<int>(neighbour);
    try {
      take_verdict(static_cast<int>(neighbour), *letter);
    } catch (InvalidArgument const& error) {
      signals.fail(SystemError(error.what(), {.rank = job_->rank(), .phase = phase}));
    }
  }
  return std::nullopt;
}

void Crossing::take_verdict(int neighbour, std::span<std::byte const> letter) {
  int const rank = port_.neighbours()[static_cast<std::size_t>(neighbour)].rank;
  scale_out::Opening const verdict =
      scale_out::read_opening(letter, {.source = rank, .epoch = epoch_}, {}, own_experts());
  decided_[static_cast<std::size_t>(neighbour)] = true;
  if (verdict.status == 0) return;
  std::int64_t const who = verdict.terms[0];
  require(who >= 0 && who < job_->size(), "rank {}: verdict: expected a rank in 0..{}, seen {}", rank,
          job_->size() - 1, who);
  note_refusal({.rank = static_cast<int>(who), .refusal = {static_cast<ErrorCode>(verdict.status), verdict.text}});
}

std::vector<int> Crossing::missing_letters() const {
  std::vector<int> missing;
  for (scale_out::Served const& from : served_)
    if (!port_.letter_from(from.neighbour)) missing.push_back(from.neighbour);
  return missing;
}

// A rank of this node that has gone before the end of the call makes it impossible, but for one that has thrown a
// refusal. Ranks of other nodes that this one waits for may be between calls, and learn of it later.
void Crossing::check_mates(char const* phase) const {
  if (refused_) return;
  for (int mate = 0; mate < link_->num_ranks; ++mate) {
    if (!job_->node()->is_lost(mate)) continue;
    // Acquire: as in Signals::wait(). After the look at the connection, since it may have raised it before it went.
    std::uint64_t const seen = (link_->control.*ended_)(link_->rank, mate).epoch.load(std::memory_order_acquire);
    if (seen >= epoch_) continue;
    link_->signals.check_usable();  // it may have said why it goes
    link_->signals.fail_awaiting(WaitResult::lost, {mate, epoch_, phase}, seen);
  }
}

int Crossing::lost_or_first(std::span<int const> awaited) const {
  auto const lost = std::ranges::find_if(awaited, [this](int neighbour) { return port_.is_lost(neighbour); });
  return lost != awaited.end() ? *lost : awaited.front();
}

scale_out::Opening Crossing::read_letter(CrossingCall const& call, scale_out::Served const& from) {
  auto const letter = port_.letter_from(from.neighbour);
  return scale_out::read_opening(
      letter.value(),
      {.source = from.rank, .epoch = call.epoch, .top_k = call.top_k, .max_tokens = call.max_tokens},
      call.terms.values, own_experts());
}

bool Crossing::pass_on(Link const& link, CrossingCall const& call,
                       std::span<scale_out::Opening const> openings) const {
  bool const trouble = std::ranges::any_of(openings, [&](scale_out::Opening const& each) {
    return each.status != 0 || each.terms != call.terms.values;
  });
  if (!trouble) return false;
  for (std::size_t i = 0; i < openings.size(); ++i) {
    PassedOn& to = link.control.passed_on(link.rank, static_cast<int>(i) + 1, call.epoch);
    to.status = openings[i].status;
    std::memcpy(to.terms, openings[i].terms.data(), sizeof to.terms);
    put_text(to.text, sizeof to.text, openings[i].text);
  }
  return true;
}

void Crossing::announce(Link const& link, Announcement const& announcement) {
  try {
    open_call(link, announcement);
  } catch (Error const&) {
    if (!link.signals.has_failed()) finish(link.signals, announcement.phase);
    throw;
  }
}

bool Crossing::turn() {
  bool const any = port_.poll();
  while (auto const notice = port_.heard()) take(*notice);
  return any;
}

bool Crossing::poll(Signals& signals) {
  try {
    return turn();
  } catch (Error const& error) {
    signals.fail(error);
  }
}

void Crossing::take(scale_out::Notice const& notice) {
  if (notice.kind == scale_out::Notice::Kind::failed) {
    others_know_ = true;
    throw_error(notice.code, notice.text, {.rank = notice.rank, .peer = notice.peer, .phase = notice.phase});
  }
  if (notice.from >= 0)
    blamed_[static_cast<std::size_t>(notice.from)] = {.rank = notice.rank, .when = Deadline::Clock::now()};
}

std::optional<Member> Crossing::blamed_by(int neighbour, std::chrono::milliseconds timeout) const {
  Blamed const& blamed = blamed_[static_cast<std::size_t>(neighbour)];
  if (blamed.rank < 0 || blamed.rank == job_->rank()) return std::nullopt;
  if (Deadline::Clock::now() - blamed.when > held_up_counts_for(timeout)) return std::nullopt;
  return Member{.rank = blamed.rank, .node = node_.topology().node_of(blamed.rank)};
}

void Crossing::fail_late(Signals& signals, Member const& late, std::optional<Member> const& culprit,
                         char const* phase) const {
  std::string const behind = culprit ? fmt::format(", which waits for {},", culprit->text()) : "";
  signals.fail(Timeout(fmt::format("rank {} (node {}): waited {} ms (timeout, or SWITCHYARD_TIMEOUT_MS) for {}{} "
                                   "during {} of call {}{}",
                                   job_->rank(), node_.node(), signals.timeout().count(), late.text(), behind,
                                   phase, epoch_, job_->silence_text(culprit.value_or(late).rank)),
                       {.rank = job_->rank(), .peer = culprit.value_or(late).rank, .phase = phase}));
}

bool Crossing::is_gone(int neighbour, Patience& patience) const {
  if (!port_.is_lost(neighbour)) return false;
  if (patience.lost != neighbour) {
    patience.lost = neighbour;
    patience.lost_until = Deadline(after_loss);
  }
  return patience.lost_until.expired();
}

void Crossing::rest(Signals& signals, int neighbour, char const* phase, Patience& patience) {
  std::int64_t const begin = link_->wait_ns.empty() ? 0 : monotonic_ns();
  Member const& late = port_.neighbours()[static_cast<std::size_t>(neighbour)];
  ErrorFacts const facts{.rank = job_->rank(), .peer = late.rank, .phase = phase};
  bool const any = poll(signals);
  signals.check_usable();
  check_mates(phase);
  if (is_gone(neighbour, patience))
    signals.fail(
        PeerLost(fmt::format("rank {}: {} ended or left during {}", job_->rank(), late.text(), phase), facts));
  auto const culprit = blamed_by(neighbour, signals.timeout());
  if (patience.held_up.is_to_be_said(culprit.value_or(late), patience.deadline, signals.timeout()))
    signals.say_held_up(culprit.value_or(late));
  // A neighbour that waits itself is to fail first, since it knows for whom. And if this rank was held up itself,
  // more may be there than one turn has brought.
  Deadline const end = culprit || any ? patience.deadline.later_by(signals.grace()) : patience.deadline;
  if (end.expired()) fail_late(signals, late, culprit, phase);
  if (next_look_.expired() && interrupted())
    signals.fail(SystemError(fmt::format("rank {}: interrupted by its caller while it waited for {} during {}",
                                         job_->rank(), late.text(), phase),
                             facts));
  if (next_look_.expired()) next_look_ = Deadline(between_looks);
  patience.idling.rest();
  if (begin > 0) link_->wait_ns[static_cast<std::size_t>(late.rank)] += monotonic_ns() - begin;
}

// The call is complete for this rank, so a neighbour that has left meanwhile is no failure of it: what is missing
// there the next call finds out, and notices wait for that, too.
void Crossing::finish(Signals& signals, char const* phase) {
  let_leave(signals, phase, &scale_out::Port::unsent_to);
}

void Crossing::finish_refused(Signals& signals, char const* phase) {
  let_leave(signals, phase, &scale_out::Port::letters_unsent_to);
}

void Crossing::let_leave(Signals& signals, char const* phase,
                         std::optional<int> (scale_out::Port::*unsent_to)() const noexcept) {
  Patience waiting = patience(signals);
  while (auto const neighbour = (port_.*unsent_to)()) {
    try {
      port_.poll();
    } catch (PeerLost const&) {
      return;
    } catch (Error const& error) {
      signals.fail(error);
    }
    // Another rank of this node may have learnt of a failure elsewhere, or a notice of one may have come, which the
    // next call hears: a neighbour that has failed polls no more.
    if (signals.has_failed() || port_.has_failed() || is_gone(*neighbour, waiting)) return;
    if (waiting.deadline.expired())
      fail_late(signals, port_.neighbours()[static_cast<std::size_t>(*neighbour)], {}, phase);
    waiting.idling.rest();
  }
}

void Crossing::say_held_up(Member const& culprit) noexcept {
  port_.say({.kind = scale_out::Notice::Kind::held_up, .epoch = epoch_, .rank = culprit.rank});
}

void Crossing::say_failed(Error const& error) noexcept {
  if (others_know_) return;
  others_know_ = true;
  port_.say_failed(error, epoch_);
}

void Crossing::drain(std::uint64_t epoch) {
  port_.drain(2 * epoch + 1);
  others_know_ = false;
}

}  // namespace switchyard
