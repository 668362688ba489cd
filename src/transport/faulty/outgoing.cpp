#include "transport/faulty/outgoing.hpp"

#include <set>
#include <utility>

#include "switchyard/error.hpp"

namespace switchyard::transport::faulty {

void Outgoing::add_peer(Peer below, PeerRegion doormat) {
  peers_.push_back({.below = below, .doormat = doormat});
}

void Outgoing::add(Write const& write) {
  std::uint64_t const id = next_id_++;
  bool const lost = loss(write.to).has_value();
  ongoing_.emplace(id, Ongoing{.write = write, .to_post = lost ? 0 : 1});
  if (lost) {
    settle(id);
  } else {
    waiting_.push_back(id);
  }
}

void Outgoing::say_finished(Peer peer, int half) {
  PeerState const& state = peers_[index(peer)];
  Part const part{.kind = PartKind::finished, .source = faults_.number, .sequence = half};
  held_.push_back(
      {Write{.to = state.below, .into = state.doormat, .immediate = immediate_of(part), .context = nobody}});
}

void Outgoing::take(Event const& event) {
  auto const found = ongoing_.find(event.context);
  if (found == ongoing_.end()) return;
  if (event.kind == Event::Kind::failed) found->second.failed = true;
  --found->second.under_way;
  settle(event.context);
}

void Outgoing::lose(Peer peer, Loss loss) {
  peers_[index(peer)].loss = loss;
  std::vector<std::uint64_t> ids;
  for (auto const& [id, ongoing] : ongoing_)
    if (ongoing.write.to == peer) ids.push_back(id);
  for (std::uint64_t const id : ids) {
    drop_parts(id);
    if (loss == Loss::failed) ongoing_.at(id).failed = true;
    settle(id);
  }
}

void Outgoing::drop_parts(std::uint64_t id) {
  std::erase(waiting_, id);
  std::erase_if(held_, [id](Held const& held) { return held.write.context == id; });
  ongoing_.at(id).to_post = 0;
}

void Outgoing::settle(std::uint64_t id) {
  auto const found = ongoing_.find(id);
  Ongoing const& ongoing = found->second;
  if (ongoing.to_post > 0 || ongoing.under_way > 0) return;
  Write const& write = ongoing.write;
  if (loss(write.to) != Loss::stuck) {
    events_.push_back({.kind = ongoing.failed ? Event::Kind::failed : Event::Kind::sent,
                       .context = write.context,
                       .peer = ongoing.failed ? write.to : Peer{-1}});
  }
  ongoing_.erase(found);
}

void Outgoing::step(std::uint64_t now) {
  start_waiting(now);
  std::vector<Held> due = take_due(now);
  chance_.shuffle(due);
  for (std::size_t i = 0; i < due.size(); ++i) {
    if (hand_over(due[i].write)) continue;
    held_.insert(held_.end(), due.begin() + static_cast<std::ptrdiff_t>(i), due.end());
    return;
  }
}

std::vector<Outgoing::Held> Outgoing::take_due(std::uint64_t now) {
  std::vector<Held> due;
  std::vector<Held> later;
  for (Held const& held : held_) (held.due > now ? later : due).push_back(held);
  held_ = std::move(later);
  return due;
}

bool Outgoing::hand_over(Write const& part) {
  if (part.context == nobody) return attempt(part, Peer{-1}) != Attempt::busy;
  Ongoing& ongoing = ongoing_.at(part.context);
  // The rest of a write that has failed does not matter any more.
  Attempt const result = ongoing.failed ? Attempt::refused : attempt(part, ongoing.write.to);
  if (result == Attempt::busy) return false;
  --ongoing.to_post;
  if (result == Attempt::posted) ++ongoing.under_way;
  if (result == Attempt::refused) ongoing.failed = true;
  settle(part.context);
  return true;
}

Outgoing::Attempt Outgoing::attempt(Write const& part, Peer peer) {
  try {
    return below_.post(part) == Endpoint::Posted::yes ? Attempt::posted : Attempt::busy;
  } catch (PeerLost const&) {
    if (peer != Peer{-1}) peers_[index(peer)].loss = Loss::failed;
    return Attempt::refused;
  } catch (InvalidArgument const&) {
    // A key that says more than the region has. Its write was posted long ago, so this is how its source learns of
    // it.
    return Attempt::refused;
  }
}

void Outgoing::start_waiting(std::uint64_t now) {
  chance_.shuffle(waiting_);
  std::erase_if(waiting_, [&](std::uint64_t id) {
    auto const sequence = next_sequence(peers_[index(ongoing_.at(id).write.to)]);
    if (sequence) cut(id, *sequence, now);
    return sequence.has_value();
  });
}

std::optional<int> Outgoing::next_sequence(PeerState& peer) {
  int const sequence = static_cast<int>(peer.next_sequence % window);
  auto const half = static_cast<std::size_t>(sequence / half_window);
  if (sequence % half_window == 0) {
    if (!peer.half_free[half]) return std::nullopt;
    peer.half_free[half] = false;
  }
  ++peer.next_sequence;
  return sequence;
}

void Outgoing::cut(std::uint64_t id, int sequence, std::uint64_t now) {
  Ongoing& ongoing = ongoing_.at(id);
  std::vector<Write> parts = parts_of(ongoing.write);
  chance_.shuffle(parts);
  ongoing.to_post = static_cast<int>(parts.size());
  Message const message{.immediate = ongoing.write.immediate, .parts = ongoing.to_post};
  std::uint64_t const begin = now + chance_.delay();
  for (int i = 0; i < ongoing.to_post; ++i) {
    Part part{.kind = PartKind::plain, .source = faults_.number, .sequence = sequence};
    if (i < num_words) {
      part.kind = static_cast<PartKind>(i);
      part.word = word_of(message, i);
    }
    Write& write = parts[static_cast<std::size_t>(i)];
    write.immediate = immediate_of(part);
    write.context = id;
    held_.push_back({write, begin + chance_.delay()});
  }
}

std::vector<Write> Outgoing::parts_of(Write const& write) {
  PeerState const& peer = peers_[index(write.to)];
  std::set<std::size_t> ends{write.bytes};
  for (std::size_t count = chance_.below(static_cast<std::size_t>(faults_.pieces)); count > 0 && write.bytes > 1;
       --count)
    ends.insert(1 + chance_.below(write.bytes - 1));
  std::vector<Write> parts;
  std::size_t begin = 0;
  for (std::size_t const end : ends) {
    if (end == begin) continue;
    Write const piece{.to = peer.below,
                      .from = write.from,
                      .from_offset = write.from_offset + begin,
                      .into = write.into,
                      .into_offset = write.into_offset + begin,
                      .bytes = end - begin};
    parts.insert(parts.end(), chance_.happens(faults_.twice) ? 2 : 1, piece);
    begin = end;
  }
  while (parts.size() < num_words) parts.push_back({.to = peer.below, .into = peer.doormat});
  return parts;
}

}  // namespace switchyard::transport::faulty
