#include "scale_out/port.hpp"

#include "scale_out/state.hpp"

namespace switchyard::scale_out {

Port::Port(std::shared_ptr<Job> job, PortSizes const& sizes, PinMemory const& pin)
    : state_(std::make_unique<State>(std::move(job), sizes, pin)) {}

Port::~Port() {
  state_->leave();
}

std::span<Member const> Port::neighbours() const noexcept {
  return state_->members();
}

int Port::number_of(int rank) const noexcept {
  return state_->number_of(rank);
}

PortSizes const& Port::sizes() const noexcept {
  return state_->sizes();
}

void Port::begin(std::uint64_t epoch) {
  state_->begin(epoch);
}

std::optional<std::span<std::byte>> Port::letter_to(int neighbour) {
  return state_->letter_to(neighbour);
}

void Port::send_letter(int neighbour, std::size_t bytes) {
  state_->send_letter(neighbour, bytes);
}

std::optional<std::span<std::byte const>> Port::letter_from(int neighbour) const {
  return state_->letter_from(neighbour);
}

std::optional<Port::Room> Port::room_for(int neighbour) {
  return state_->room_for(neighbour);
}

void Port::send(Room const& room, std::size_t bytes) {
  state_->send(room, bytes);
}

int Port::keeps_room_from(int neighbour) const {
  return state_->keeps_room_from(neighbour);
}

bool Port::has_left(Room const& room) const {
  return state_->has_left(room);
}

bool Port::chunks_under_way_to(int neighbour) const {
  return state_->chunks_under_way_to(neighbour);
}

std::optional<Port::Chunk> Port::next_chunk(int neighbour) {
  return state_->next_chunk(neighbour);
}

void Port::give_back(Chunk const& chunk) {
  state_->give_back(chunk);
}

bool Port::poll() {
  return state_->poll();
}

bool Port::all_sent() const noexcept {
  return state_->all_sent();
}

std::optional<int> Port::unsent_to() const noexcept {
  return state_->unsent_to();
}

std::optional<int> Port::letters_unsent_to() const noexcept {
  return state_->letters_unsent_to();
}

bool Port::is_lost(int neighbour) const noexcept {
  return state_->is_lost(neighbour);
}

bool Port::has_failed() const noexcept {
  return state_->has_failed();
}

void Port::give_up(int neighbour) {
  state_->give_up(neighbour);
}

bool Port::given_up(int neighbour) const {
  return state_->given_up(neighbour);
}

void Port::say(Notice const& notice) noexcept {
  try {
    state_->say(notice);
  } catch (...) {  // NOLINT(bugprone-empty-catch): who says it has more to do than to hear that it could not
  }
}

void Port::say_failed(Error const& error, std::uint64_t epoch) noexcept {
  try {
    say({.kind = Notice::Kind::failed,
         .epoch = epoch,
         .code = error.code(),
         .rank = error.rank(),
         .peer = error.peer(),
         .phase = error.phase(),
         .text = error.what()});
  } catch (std::exception const&) {  // no memory for the text: others find out by themselves
  }
}

std::optional<Notice> Port::heard() {
  return state_->heard();
}

void Port::drain(std::uint64_t epoch) {
  state_->drain(epoch);
}

WireCount const& Port::sent() const noexcept {
  return state_->sent();
}

}  // namespace switchyard::scale_out
