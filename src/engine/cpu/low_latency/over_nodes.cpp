#include "engine/cpu/low_latency/over_nodes.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "control/idling.hpp"

namespace switchyard::cpu {

OverNodes::OverNodes(LowLatency& engine, std::shared_ptr<Job> const& job, LowLatencySetup const& setup)
    : engine_(engine),
      slots_(engine.slots_),
      job_(job),
      experts_(scale_out::experts_by_node(slots_.node().topology(), slots_.experts())),
      rails_(job, slots_.node(), setup.port),
      tolerant_(setup.mask_late_peers) {
  for (int frame = 0; frame < setup.sizes.frames; ++frame) {
    frames_.push_back(std::make_unique<OfFrame>());
    frames_.back()->to.resize(rails_.ways().size());
    frames_.back()->from.resize(rails_.served().size());
  }
}

// Masked neighbours may listen no more, so the port does not wait for them.
OverNodes::~OverNodes() {
  logger().debug("rank {}: low latency: {} bytes in {} writes to other nodes", slots_.rank(), rails_.sent().bytes,
                 rails_.sent().writes);
  for (int neighbour = 0; neighbour < rails_.num_neighbours(); ++neighbour)
    if (is_masked(neighbour)) rails_.give_up(neighbour);
}

LocalRankMask OverNodes::everybody() const {
  return ~LocalRankMask{0} >> (max_node_ranks - static_cast<int>(slots_.local_ranks().size()));
}

LocalRankMask OverNodes::masked_on(int node) const {
  LocalRankMask masked = 0;
  auto const ranks = slots_.node().topology().ranks_of(node);
  for (std::size_t local = 0; local < ranks.size(); ++local)
    if (engine_.masked(ranks[local])) masked |= mask_of(static_cast<int>(local));
  return masked;
}

void OverNodes::turn() {
  rails_.turn([this](int neighbour) { return tolerant_ || is_masked(neighbour); });
  note_given_up();
  for (int neighbour = 0; neighbour < rails_.num_neighbours(); ++neighbour)
    static_cast<void>(rails_.take(neighbour, [&](Bytes chunk) { return use(neighbour, chunk); }));
  serve();
}

void OverNodes::turn_or_fail() {
  try {
    turn();
  } catch (Error const& error) {
    fail(error);
  }
}

void OverNodes::note_given_up() {
  for (int neighbour = 0; neighbour < rails_.num_neighbours(); ++neighbour) {
    int const rank = rails_.member(neighbour).rank;
    if (rails_.given_up(neighbour) && !engine_.masked(rank)) engine_.mask(rank, true);
  }
}

int OverNodes::index_of_way(int neighbour) const {
  auto const found = std::ranges::find(rails_.ways(), neighbour, &scale_out::Way::neighbour);
  return found == rails_.ways().end() ? -1 : static_cast<int>(found - rails_.ways().begin());
}

int OverNodes::index_of_source(int neighbour) const {
  auto const found = std::ranges::find(rails_.served(), neighbour, &scale_out::Served::neighbour);
  return found == rails_.served().end() ? -1 : static_cast<int>(found - rails_.served().begin());
}

// Whether the chunk's slot can be given back. What comes from outside is checked: a reader refuses it as a wrong
// argument, which for this rank is a broken neighbour.
bool OverNodes::use(int neighbour, Bytes chunk) {
  int const rank = rails_.member(neighbour).rank;
  Header header;
  try {
    header = scale_out::read_slot_header(chunk, {.rank = rank,
                                                 .frames = slots_.sizes().frames,
                                                 .max_tokens = slots_.sizes().max_tokens,
                                                 .top_k = slots_.sizes().top_k});
    chunk = chunk.first(header.bytes);
  } catch (InvalidArgument const& error) {
    throw SystemError(error.what(), {.rank = slots_.rank(), .peer = rank, .phase = "low_latency/cross"});
  }
  if (header.kind == Kind::parts) {
    engine_.mask(rank, true);
    return true;
  }
  if (header.kind != Kind::sums) return use_of_source(neighbour, header, chunk);
  int const way = index_of_way(neighbour);
  if (way >= 0) take_sums(static_cast<std::size_t>(way), header, chunk);
  return true;
}

// Chunks of a call that this rank has not begun yet wait. So do those of this call whose turn has not come.
bool OverNodes::use_of_source(int neighbour, Header const& header, Bytes chunk) {
  int const index = index_of_source(neighbour);
  if (index < 0) return true;
  std::uint64_t const now = engine_.frames_[header.frame].epoch;
  if (header.epoch != now) return header.epoch < now;
  auto const source = static_cast<std::size_t>(index);
  return header.kind == Kind::rows ? take_rows(source, header, chunk) : take_asks(source, header, chunk);
}

void OverNodes::refuse_digest(int rank, char const* phase, char const* options) const {
  throw InvalidArgument(fmt::format("rank {}: {}: expected the same {} on all ranks, seen others on rank {}", rank,
                                    phase, options, slots_.rank()),
                        {.rank = rank, .peer = slots_.rank(), .phase = phase});
}

int OverNodes::gone_or_late(std::span<int const> missing, Deadline const& deadline) {
  bool const expired = deadline.expired();
  for (int const rank : missing) {
    if (slots_.is_local(rank) || slots_.server_of(rank) != slots_.rank()) continue;
    int const neighbour = rails_.number_of(rank);
    if (expired || rails_.is_lost(neighbour)) return rank;
    say_held_up_by(neighbour, deadline, held_up_);
  }
  return -1;
}

void OverNodes::say_held_up_by(int neighbour, Deadline const& deadline, HeldUp& held_up) {
  Member culprit = rails_.member(neighbour);
  int const behind = rails_.blamed_by(neighbour);
  if (behind >= 0) culprit = {.rank = behind, .node = slots_.node().topology().node_of(behind)};
  if (held_up.is_to_be_said(culprit, deadline, engine_.signals_.timeout())) engine_.signals_.say_held_up(culprit);
}

void OverNodes::give_up_source(int source, char const* phase) {
  int const neighbour = rails_.number_of(source);
  int const culprit = holds_up(source);
  if (culprit < 0) return give_up(neighbour, rails_.is_lost(neighbour), phase);
  if (tolerant_) {
    engine_.mask(culprit, true);
    return;
  }
  fail(Timeout(fmt::format("rank {}: the timeout (or SWITCHYARD_TIMEOUT_MS) has passed waiting for room at rank {} "
                           "for rank {} during {}{}",
                           slots_.rank(), culprit, source, phase, job_->silence_text(culprit)),
               {.rank = slots_.rank(), .peer = culprit, .phase = phase}));
}

Error OverNodes::late(int neighbour, char const* phase) const {
  Member const& member = rails_.member(neighbour);
  int const culprit = rails_.blamed_by(neighbour);
  std::string const waits = culprit < 0 ? "" : fmt::format(", which waits for rank {}", culprit);
  int const late = culprit < 0 ? member.rank : culprit;
  return Timeout(
      fmt::format("rank {}: the timeout (or SWITCHYARD_TIMEOUT_MS) has passed waiting for {}{} during {}{}",
                  slots_.rank(), member.text(), waits, phase, job_->silence_text(late)),
      {.rank = slots_.rank(), .peer = late, .phase = phase});
}

// A neighbour that is gone, or late. With masks its tokens are lost, and those that go through it.
void OverNodes::give_up(int neighbour, bool lost, char const* phase) {
  Member const& member = rails_.member(neighbour);
  if (tolerant_) {
    if (!lost) part_from(neighbour);
    rails_.give_up(neighbour);
    engine_.mask(member.rank, true);
    return;
  }
  if (!lost) fail(late(neighbour, phase));
  fail(PeerLost(fmt::format("rank {}: {} ended or left during {}", slots_.rank(), member.text(), phase),
                {.rank = slots_.rank(), .peer = member.rank, .phase = phase}));
}

// The last thing that it hears from this rank: should it only be late, it will not wait for this rank.
void OverNodes::part_from(int neighbour) {
  rails_.send_last(neighbour, [](std::span<std::byte> to) {
    scale_out::store(to.data(), Header{.magic = scale_out::slot_chunk_magic,
                                       .kind = Kind::parts,
                                       .bytes = static_cast<std::uint32_t>(sizeof(Header))});
    return sizeof(Header);
  });
}

// Until `missing` names no neighbour any more. One that says that it waits for somebody gets more time: it may be
// about to mask that one.
void OverNodes::await(char const* phase, std::function<int()> const& missing) {
  Deadline deadline = engine_.signals_.deadline();
  bool may_extend = tolerant_;
  Idling idling;
  HeldUp held_up;
  for (int neighbour = missing(); neighbour >= 0; neighbour = missing()) {
    engine_.signals_.check_usable();
    if (rails_.is_lost(neighbour)) {
      give_up(neighbour, true, phase);
    } else if (deadline.expired() && may_extend && rails_.blamed_by(neighbour) >= 0) {
      may_extend = false;
      deadline = engine_.signals_.deadline();
    } else if (deadline.expired()) {
      give_up(neighbour, false, phase);
    } else if (interrupted()) {
      fail(SystemError(fmt::format("rank {}: interrupted by its caller while it waited for {} during {}",
                                   slots_.rank(), rails_.member(neighbour).text(), phase),
                       {.rank = slots_.rank(), .peer = rails_.member(neighbour).rank, .phase = phase}));
    } else {
      say_held_up_by(neighbour, deadline, held_up);
      idling.rest();
    }
    turn_or_fail();
  }
}

void OverNodes::clean() {
  for (auto& frame : frames_) {
    frame = std::make_unique<OfFrame>();
    frame->to.resize(rails_.ways().size());
    frame->from.resize(rails_.served().size());
  }
  rails_.drain();
}

}  // namespace switchyard::cpu
