#include "scale_out/state.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "scale_out/rest.hpp"

namespace switchyard::scale_out {

namespace {

// What a begin() may leave out: less than what epoch_near() tells apart.
constexpr std::uint64_t longest_step = transport::epoch_range / 4;
// How long a failure is waited with until it has left: nobody makes progress afterwards, and whoever does not learn
// of it waits for its own deadline. It takes long only where a neighbour in the call does not get to run.
constexpr std::chrono::milliseconds patience_for_a_failure{1000};

}  // namespace

void Port::State::forget_calls(std::uint64_t epoch) {
  std::vector<std::uint64_t> arrived(neighbours_.size(), 0);
  for (std::size_t i = 0; i < withs_.size(); ++i) arrived[i] = withs_[i].arrived;
  withs_.assign(neighbours_.size(), With(sizes_.slots));
  for (std::size_t i = 0; i < withs_.size(); ++i) withs_[i].arrived = arrived[i];
  send_slots_.assign(static_cast<std::size_t>(sizes_.send_slots), {});
  free_send_slots_.clear();
  for (int slot = sizes_.send_slots; slot > 0; --slot) free_send_slots_.push_back(slot - 1);
  notices_.clear();
  arrivals_.emplace(num_epoch_channels, num_neighbours(),
                    neighbours_.size() * static_cast<std::size_t>(std::max(letter_places, sizes_.slots)));
  for (int channel = 0; epoch > 0 && channel < num_epoch_channels; ++channel) arrivals_->begin(channel, epoch);
  epoch_ = epoch;
  error_.reset();
  failed_ = false;
}

int Port::State::number_of(int rank) const noexcept {
  auto const found = std::ranges::lower_bound(members_, rank, {}, &Member::rank);
  return found != members_.end() && found->rank == rank ? static_cast<int>(found - members_.begin()) : -1;
}

std::size_t Port::State::checked(int neighbour) const {
  require(neighbour >= 0 && neighbour < num_neighbours(), "neighbour: expected 0 to below {}, seen {}",
          num_neighbours(), neighbour);
  return static_cast<std::size_t>(neighbour);
}

std::span<std::byte> Port::State::memory(Place const& place) const {
  return memory_->bytes().subspan(place.offset, place.bytes);
}

bool Port::State::is_lost(int neighbour) const noexcept {
  if (neighbour < 0 || neighbour >= num_neighbours()) return false;
  return job_->is_lost(members_[static_cast<std::size_t>(neighbour)].rank);
}

bool Port::State::is_gone(int neighbour) const {
  With const& one = with(neighbour);
  return is_lost(neighbour) || one.given_up || !one.broken.empty();
}

void Port::State::begin(std::uint64_t epoch) {
  require(epoch > epoch_ && epoch - epoch_ <= longest_step, "epoch: expected {} to {}, seen {}", epoch_ + 1,
          epoch_ + longest_step, epoch);
  epoch_ = epoch;
  auto const letters = arrivals_->begin(static_cast<int>(Channel::letter), epoch);
  auto const chunks = arrivals_->begin(static_cast<int>(Channel::chunk), epoch);
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    With& one = with(neighbour);
    one.letter_sent = false;
    one.letter_here = false;
    one.chunks.clear();
    for (int const slot : one.here.left_before(epoch)) {
      one.here.hand_out(slot);
      give_back_slot(neighbour, slot);
    }
  }
  for (auto const& tag : letters) take_letter({.tag = tag});
  for (auto const& tag : chunks) with(tag.source).chunks.push_back(tag.slot);
}

std::optional<std::span<std::byte>> Port::State::letter_to(int neighbour) {
  require(epoch_ > 0, "letter_to: expected a call that has begun, seen none");
  if (with(neighbour).letter_under_way[static_cast<std::size_t>(letter_place())]) return std::nullopt;
  return memory(layout_->letter_out(neighbour, letter_place()));
}

void Port::State::send_letter(int neighbour, std::size_t bytes) {
  With& one = with(neighbour);
  auto& under_way = one.letter_under_way[static_cast<std::size_t>(letter_place())];
  require(epoch_ > 0 && !one.letter_sent && !under_way,
          "send_letter: expected one letter in each call, seen another");
  require(bytes <= sizes_.letter_bytes, "send_letter: expected at most {} bytes, seen {}", sizes_.letter_bytes,
          bytes);
  one.letter_sent = true;
  under_way = true;
  wires_->post(
      {.channel = Channel::letter,
       .neighbour = neighbour,
       .slot = letter_place(),
       .epoch = epoch_,
       .bytes = bytes,
       .from = layout_->letter_out(neighbour, letter_place()).offset,
       .into = there(neighbour).letter_in(neighbours_[checked(neighbour)].number_there, letter_place()).offset,
       .place = static_cast<std::uint32_t>(letter_place())});
}

std::optional<std::span<std::byte const>> Port::State::letter_from(int neighbour) const {
  if (!with(neighbour).letter_here) return std::nullopt;
  return memory(layout_->letter_in(neighbour, letter_place()));
}

std::optional<Port::Room> Port::State::room_for(int neighbour) {
  With& one = with(neighbour);
  if (free_send_slots_.empty() || one.given_up) return std::nullopt;
  auto const slot = one.there.take();
  if (!slot) return std::nullopt;
  int const from = free_send_slots_.back();
  free_send_slots_.pop_back();
  SendSlot& taken = send_slots_[static_cast<std::size_t>(from)];
  taken = {.is = SendSlot::Is::taken, .neighbour = neighbour, .slot = *slot, .use = taken.use + 1};
  return Room{.neighbour = neighbour,
              .slot = *slot,
              .from = from,
              .memory = memory(layout_->chunk_out(from)),
              .use = taken.use};
}

void Port::State::send(Room const& room, std::size_t bytes) {
  require(bytes <= sizes_.slot_bytes, "send: expected at most {} bytes, seen {}", sizes_.slot_bytes, bytes);
  With& one = with(room.neighbour);
  char const* const other = "send: expected a room that was taken and not sent yet, seen another";
  require(room.from >= 0 && room.from < sizes_.send_slots, "{}", other);
  SendSlot& from = send_slots_[static_cast<std::size_t>(room.from)];
  require(from.is == SendSlot::Is::taken && from.neighbour == room.neighbour && from.slot == room.slot &&
              one.there.send(room.slot),
          "{}", other);
  from.is = SendSlot::Is::under_way;
  from.epoch = epoch_;
  wires_->post(
      {.channel = Channel::chunk,
       .neighbour = room.neighbour,
       .slot = room.slot,
       .epoch = epoch_,
       .bytes = bytes,
       .from = layout_->chunk_out(room.from).offset,
       .into = there(room.neighbour).chunk_in(neighbours_[checked(room.neighbour)].number_there, room.slot).offset,
       .place = static_cast<std::uint32_t>(room.from)});
}

int Port::State::keeps_room_from(int neighbour) const {
  if (!with(neighbour).there.any_free() || !free_send_slots_.empty()) return neighbour;
  int most = neighbour;
  for (int other = 0; other < num_neighbours(); ++other)
    if (wires_->open(other, Channel::chunk) > wires_->open(most, Channel::chunk)) most = other;
  return most;
}

bool Port::State::has_left(Room const& room) const {
  require(room.from >= 0 && room.from < sizes_.send_slots, "has_left: expected a room of this port, seen another");
  SendSlot const& from = send_slots_[static_cast<std::size_t>(room.from)];
  return from.use != room.use || from.is != SendSlot::Is::under_way;
}

// What others have failed with shows now, where this neighbour's failure came first.
void Port::State::give_up(int neighbour) {
  with(neighbour).given_up = true;
  if (!error_ || error_->peer() != members_[checked(neighbour)].rank) return;
  error_.reset();
  for (int other = 0; other < num_neighbours(); ++other) {
    With const& one = with(other);
    int const rank = members_[checked(other)].rank;
    if (!one.broken.empty() && !one.given_up) note(PeerLost(one.broken, {.rank = job_->rank(), .peer = rank}));
  }
}

std::optional<Port::Chunk> Port::State::next_chunk(int neighbour) {
  With& one = with(neighbour);
  if (one.chunks.empty()) return std::nullopt;
  int const slot = one.chunks.front();
  one.chunks.pop_front();
  one.here.hand_out(slot);
  return Chunk{.neighbour = neighbour, .slot = slot, .memory = memory(layout_->chunk_in(neighbour, slot))};
}

void Port::State::give_back(Chunk const& chunk) {
  static_cast<void>(with(chunk.neighbour));  // checks it
  give_back_slot(chunk.neighbour, chunk.slot);
}

void Port::State::give_back_slot(int neighbour, int slot) {
  auto const use = with(neighbour).here.empty(slot);
  require(use.has_value(), "give_back: expected a chunk that was taken and not given back yet, seen slot {}", slot);
  if (given_up(neighbour)) return;
  wires_->post({.channel = Channel::credit, .neighbour = neighbour, .slot = slot, .epoch = *use});
}

bool Port::State::poll() {
  bool const any = take_events();
  if (error_)
    throw_error(error_->code(), error_->what(),
                {.rank = error_->rank(), .peer = error_->peer(), .phase = error_->phase()});
  return any;
}

// Credits and notices need not have left: they have no memory of the call, and whoever needs them waits for this
// rank, which then polls. So a call's end waits for nobody who has ended it.
bool Port::State::all_sent() const noexcept {
  return !unsent_to();
}

// Chunks of a call that was refused may leave in any later one.
std::optional<int> Port::State::unsent_to() const noexcept {
  if (auto const neighbour = letters_unsent_to()) return neighbour;
  for (SendSlot const& slot : send_slots_)
    if (slot.is == SendSlot::Is::under_way && slot.epoch == epoch_) return slot.neighbour;
  return std::nullopt;
}

std::optional<int> Port::State::letters_unsent_to() const noexcept {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour)
    if (wires_->open(neighbour, Channel::letter) > 0) return neighbour;
  return std::nullopt;
}

void Port::State::put_notice(int neighbour, int place, Notice const& notice) {
  NoticePlace& state = with(neighbour).notices_out[static_cast<std::size_t>(place)];
  if (!state.free()) return;
  Place const from = layout_->notice_out(neighbour, place);
  write_notice(notice, memory(from));
  state = {.under_way = true, .untaken = true};
  int const number = neighbours_[checked(neighbour)].number_there;
  wires_->post({.channel = Channel::notice,
                .neighbour = neighbour,
                .slot = place,
                .bytes = from.bytes,
                .from = from.offset,
                .into = there(neighbour).notice_in(number, place).offset,
                .place = static_cast<std::uint32_t>(place)});
}

void Port::State::say(Notice const& notice) {
  if (draining_) return;  // a reset that has failed: nothing new may be under way, and the others' fails, too
  bool const is_failure = notice.kind == Notice::Kind::failed;
  failed_ = failed_ || is_failure;
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    if (is_gone(neighbour)) continue;
    auto const& places = with(neighbour).notices_out;
    int place = notice_places - 1;
    for (int other = 0; !is_failure && other < notice_places - 1; ++other)
      if (places[static_cast<std::size_t>(other)].free()) place = other;
    if (is_failure || place < notice_places - 1) put_notice(neighbour, place, notice);
  }
  Deadline const deadline(patience_for_a_failure);
  Rest rest;
  while (is_failure && failure_under_way(notice.peer) && !deadline.expired()) {
    if (!take_events()) rest.turn();
  }
}

// `culprit`: who has failed to come takes nothing, either.
bool Port::State::failure_under_way(int culprit) const {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    bool const comes = members_[checked(neighbour)].rank != culprit && !is_lost(neighbour);
    if (comes && with(neighbour).notices_out.back().under_way) return true;
  }
  return false;
}

std::optional<Notice> Port::State::heard() {
  if (notices_.empty()) return std::nullopt;
  NoticeHere const here = notices_.front();
  notices_.pop_front();
  auto notice = read_notice(memory(layout_->notice_in(here.neighbour, here.place)), job_->size());
  with(here.neighbour).notices_here[static_cast<std::size_t>(here.place)] = false;
  if (!given_up(here.neighbour))
    wires_->post({.channel = Channel::notice_taken, .neighbour = here.neighbour, .slot = here.place});
  if (!notice) {
    Member const& member = members_[static_cast<std::size_t>(here.neighbour)];
    throw SystemError(fmt::format("{}: expected a notice, seen bytes that are none", member.text()),
                      {.rank = job_->rank(), .peer = member.rank});
  }
  notice->from = here.neighbour;
  return notice;
}

}  // namespace switchyard::scale_out
