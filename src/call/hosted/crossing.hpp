// What a rank has for the way to other nodes: its port, who is where, and waits that name the rank to blame.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/refusal.hpp"
#include "control/announce.hpp"
#include "control/idling.hpp"
#include "job/job.hpp"
#include "layout/experts.hpp"
#include "layout/node_in_job.hpp"
#include "layout/scale_out/node_experts.hpp"
#include "layout/scale_out/node_tokens.hpp"
#include "layout/scale_out/opening.hpp"
#include "plan/ring_plan.hpp"
#include "scale_out/port.hpp"
#include "scale_out/ways.hpp"

namespace switchyard {

// What a call needs to be opened with other nodes.
struct CrossingCall {
  std::uint64_t epoch = 0;
  char const* phase = "";
  CallTerms const& terms;
  std::optional<Refusal> const& refusal;
  // What ranks of a node raise for one another when they have ended the call.
  Flag& (ControlArea::*ended)(int owner, int writer) const = nullptr;
  // By node, where the call counts: what this rank sends there.
  std::vector<scale_out::NodeTokens> const* counted = nullptr;
  int top_k = 0;
  std::int64_t max_tokens = 0;
};

// While a rank packs, places or sums rows, it looks at completions after so many of them. A look costs system calls
// over TCP, and each turn begins with one: of the usual chunks a turn places and sends one each. Larger ones should
// not let a link run dry (bench/results/2026-11-30-nodes.md).
[[nodiscard]] constexpr std::size_t rows_between_looks(std::size_t row_bytes) noexcept {
  constexpr std::size_t bytes = std::size_t{512} << 10;
  return row_bytes < bytes ? bytes / std::max<std::size_t>(row_bytes, 1) : 1;
}

// Calls step(item) for one item after the other, from `next` on, until it returns true; returns whether it did. The
// item behind that one is the next to have its turn.
template <typename Item, typename Step>
bool in_turn(std::vector<Item>& items, std::size_t& next, Step const& step) {
  for (std::size_t tried = 0; tried < items.size(); ++tried) {
    Item& item = items[next];
    next = (next + 1) % items.size();
    if (step(item)) return true;
  }
  return false;
}

class Crossing {
 public:
  // Collective over the job. `pin` as Port takes it.
  Crossing(std::shared_ptr<Job> job, NodeInJob const& node, ExpertSplit const& experts, RingPlan const& rings,
           scale_out::PinMemory const& pin = {});

  [[nodiscard]] int rank() const noexcept { return job_->rank(); }
  [[nodiscard]] scale_out::Port& port() noexcept { return port_; }
  [[nodiscard]] NodeInJob const& node() const noexcept { return node_; }
  [[nodiscard]] scale_out::NodeExperts const& experts_of(int node) const noexcept {
    return experts_[static_cast<std::size_t>(node)];
  }
  [[nodiscard]] scale_out::NodeExperts const& own_experts() const noexcept { return experts_of(node_.node()); }
  [[nodiscard]] std::span<scale_out::Way const> ways() const noexcept { return ways_; }
  [[nodiscard]] std::span<scale_out::Served const> served() const noexcept { return served_; }

  // Sends this rank's letters, and returns those of the ranks that it serves, in their order. Fails the buffer when
  // one does not come, or is broken.
  std::vector<scale_out::Opening> open(Link const& link, CrossingCall const& call);
  // Tells all neighbours whether this rank's node has room for what they send, or which rank refuses. Each call
  // that counts on that sends it, and awaits that of all neighbours before it ends: of all refusals the first by
  // rank is thrown everywhere, and letters may overwrite one another otherwise (scale_out/port.hpp).
  struct Verdict {
    int rank = -1;  // who refuses
    Refusal refusal{};
  };
  void send_verdict(Signals& signals, char const* phase, std::optional<Verdict> const& verdict);
  // Waits for those of all neighbours.
  void await_verdicts(Signals& signals, char const* phase);
  // The first refusal by rank that is known; and the first neighbour that has said nothing yet.
  [[nodiscard]] std::optional<Verdict> const& refused() const noexcept { return refused_; }
  [[nodiscard]] std::optional<int> first_undecided(Signals& signals, char const* phase);

  // Lets other ranks of the node see what they asked; returns whether one refuses, or was asked something else.
  [[nodiscard]] bool pass_on(Link const& link, CrossingCall const& call,
                             std::span<scale_out::Opening const> openings) const;

  // open_call() within the node. What it throws on all ranks alike leaves here only when the letters have:
  // neighbours wait for them, and nobody makes progress between calls.
  void announce(Link const& link, Announcement const& announcement);

  // A turn of any wait: the network makes progress. Throws what ended the call elsewhere. Returns whether anything
  // came.
  bool turn();
  // The same for whoever is in a call: what is thrown fails the buffer.
  bool poll(Signals& signals);
  // A turn of a wait for a neighbour in which nothing came. Fails the buffer when that is lost, or too late, or the
  // call is interrupted.
  struct Patience {
    Deadline deadline;
    Idling idling{};
    HeldUp held_up{};
    int lost = -1;  // a neighbour that is gone; what it sent before may still come until then
    Deadline lost_until{std::chrono::milliseconds{0}};
  };
  [[nodiscard]] static Patience patience(Signals const& signals) { return {.deadline = signals.deadline()}; }
  void rest(Signals& signals, int neighbour, char const* phase, Patience& patience);
  // Of several neighbours that a rank waits for: one that is gone, or the first. Whoever is first may come late,
  // and need not be waited for when another never comes.
  [[nodiscard]] int lost_or_first(std::span<int const> awaited) const;
  // Whom such a wait is for where this rank has no room to send to a neighbour.
  [[nodiscard]] int keeps_room_from(int neighbour) const { return port_.keeps_room_from(neighbour); }

  // Waits until all that this rank sent has left: nobody makes progress for it afterwards.
  void finish(Signals& signals, char const* phase);
  // The same in a call that all ranks refuse, of letters alone.
  void finish_refused(Signals& signals, char const* phase);

  void say_held_up(Member const& culprit) noexcept;
  // Tells other nodes why this rank makes no further calls, unless they know.
  void say_failed(Error const& error) noexcept;

  // Step of a reset; see Port::drain().
  void drain(std::uint64_t epoch);

 private:
  void let_leave(Signals& signals, char const* phase,
                 std::optional<int> (scale_out::Port::*unsent_to)() const noexcept);
  std::span<std::byte> room_for_letter(Signals& signals, int neighbour, char const* phase);
  void send_letter(Signals& signals, CrossingCall const& call, scale_out::Way const& way);
  void take_verdict(int neighbour, std::span<std::byte const> letter);
  [[nodiscard]] std::vector<int> missing_letters() const;
  void check_mates(char const* phase) const;
  [[nodiscard]] scale_out::Opening read_letter(CrossingCall const& call, scale_out::Served const& from);
  void take(scale_out::Notice const& notice);
  // Whether the neighbour is lost, and nothing that it sent before has come for a while.
  [[nodiscard]] bool is_gone(int neighbour, Patience& patience) const;
  void note_refusal(Verdict const& verdict);
  [[nodiscard]] std::optional<Member> blamed_by(int neighbour, std::chrono::milliseconds timeout) const;
  [[noreturn]] void fail_late(Signals& signals, Member const& late, std::optional<Member> const& culprit,
                              char const* phase) const;

  std::shared_ptr<Job> job_;
  NodeInJob const& node_;
  std::vector<scale_out::NodeExperts> experts_;  // by node
  scale_out::Port port_;
  std::vector<scale_out::Way> ways_;
  std::vector<scale_out::Served> served_;
  // Of the call.
  std::uint64_t epoch_ = 0;
  Link const* link_ = nullptr;
  Flag& (ControlArea::*ended_)(int owner, int writer) const = nullptr;
  // By neighbour: whom it said it waits for, and when. What is old says nothing any more, whatever call it was in:
  // a neighbour may be held up in the call before this one.
  struct Blamed {
    int rank = -1;
    Deadline::Clock::time_point when{};
  };
  std::vector<Blamed> blamed_;
  Deadline next_look_{std::chrono::milliseconds{0}};  // for an interrupt: to ask may take a lock
  std::vector<bool> decided_;                         // by neighbour: its verdict has come
  std::optional<Verdict> refused_;
  bool others_know_ = false;  // that this node has failed
};

}  // namespace switchyard
