#include "conformance/scale_out/calls.hpp"

#include <algorithm>
#include <cstring>

#include "base/deadline.hpp"

namespace switchyard::test {

namespace {

constexpr std::uint64_t letter_key = 1;
constexpr std::uint64_t chunk_key = 2;
constexpr std::uint64_t count_key = 3;
constexpr std::uint64_t size_key = 4;

std::byte byte_of(std::uint64_t key, std::size_t i) {
  return static_cast<std::byte>(mix(key, i / 8) >> (i % 8 * 8));
}

void fill(std::span<std::byte> bytes, std::uint64_t key, std::size_t begin) {
  for (std::size_t i = begin; i < bytes.size(); ++i) bytes[i] = byte_of(key, i);
}

std::size_t first_wrong(std::span<std::byte const> bytes, std::uint64_t key, std::size_t begin) {
  std::size_t i = begin;
  while (i < bytes.size() && bytes[i] == byte_of(key, i)) ++i;
  return i;
}

}  // namespace

std::size_t Traffic::letter_bytes(std::uint64_t epoch, int from, int to) const {
  return mix(seed, letter_key, epoch, from, to) % (sizes.letter_bytes + 1);
}

int Traffic::chunks(std::uint64_t epoch, int from, int to) const {
  if (sizes.slots == 0 || sizes.send_slots == 0) return 0;
  std::uint64_t const draw = mix(seed, count_key, epoch, from, to);
  if (draw % 4 == 0) return 0;
  return static_cast<int>(draw / 4 % static_cast<std::uint64_t>(most_chunks + 1));
}

std::size_t Traffic::chunk_bytes(std::uint64_t epoch, int from, int to, int index) const {
  std::uint64_t const draw = mix(seed, size_key, epoch, from, to, index);
  if (draw % 3 == 0) return sizes.slot_bytes;
  return sizeof(std::int32_t) + draw / 3 % (sizes.slot_bytes - sizeof(std::int32_t) + 1);
}

Caller::Caller(scale_out::Port& port, Job const& job, Traffic const& traffic)
    : port_(port), rank_(job.rank()), traffic_(traffic), random_(mix(traffic.seed, rank_)) {
  for (auto const& member : port.neighbours()) withs_.push_back({.rank = member.rank, .seen = {}});
}

void Caller::begin(std::uint64_t epoch) {
  epoch_ = epoch;
  for (With& with : withs_) {
    with = {.rank = with.rank, .seen = {}};
    with.seen.resize(static_cast<std::size_t>(traffic_.chunks(epoch, with.rank, rank_)));
  }
  held_.clear();
  port_.begin(epoch);
}

void Caller::call(std::uint64_t epoch) {
  begin(epoch);
  Deadline const deadline(hang_deadline / 3);
  while (!done()) {
    check(!deadline.expired(), "call ", epoch, " never ended");
    step();
  }
}

void Caller::abandoned_call(std::uint64_t epoch) {
  begin(epoch);
  for (int steps = random_.between(0, 200); steps > 0; --steps) step();
}

void Caller::step() {
  bool const came = port_.poll();
  for (int neighbour = 0; neighbour < static_cast<int>(withs_.size()); ++neighbour) {
    write_to(neighbour);
    read_from(neighbour);
  }
  give_some_back();
  if (!came) rest_.turn();
}

bool Caller::done() const {
  auto const through = [&](With const& with) {
    return with.letter_sent && with.letter_seen && with.sent == traffic_.chunks(epoch_, rank_, with.rank) &&
           with.num_seen == static_cast<int>(with.seen.size());
  };
  return std::ranges::all_of(withs_, through) && held_.empty() && port_.all_sent();
}

void Caller::write_to(int neighbour) {
  With& with = withs_[static_cast<std::size_t>(neighbour)];
  auto const letter = with.letter_sent ? std::nullopt : port_.letter_to(neighbour);
  if (letter) {
    std::size_t const bytes = traffic_.letter_bytes(epoch_, rank_, with.rank);
    fill(letter->first(bytes), mix(traffic_.seed, letter_key, epoch_, rank_, with.rank), 0);
    port_.send_letter(neighbour, bytes);
    with.letter_sent = true;
    ++writes_;
    bytes_ += bytes;
  }
  while (with.sent < traffic_.chunks(epoch_, rank_, with.rank)) {
    auto const room = port_.room_for(neighbour);
    if (!room) return;
    std::int32_t const index = with.sent++;
    std::size_t const bytes = traffic_.chunk_bytes(epoch_, rank_, with.rank, index);
    std::memcpy(room->memory.data(), &index, sizeof index);
    fill(room->memory.first(bytes), mix(traffic_.seed, chunk_key, epoch_, rank_, with.rank, index), sizeof index);
    port_.send(*room, bytes);
    ++writes_;
    bytes_ += bytes;
  }
}

void Caller::read_from(int neighbour) {
  With& with = withs_[static_cast<std::size_t>(neighbour)];
  if (!with.letter_seen) {
    if (auto const letter = port_.letter_from(neighbour)) {
      std::size_t const bytes = traffic_.letter_bytes(epoch_, with.rank, rank_);
      std::uint64_t const key = mix(traffic_.seed, letter_key, epoch_, with.rank, rank_);
      check_equal(first_wrong(letter->first(bytes), key, 0), bytes, "bytes of a letter of call ", epoch_);
      with.letter_seen = true;
    }
  }
  while (auto const chunk = port_.next_chunk(neighbour)) {
    check_chunk(*chunk);
    held_.push_back(*chunk);
  }
}

void Caller::check_chunk(scale_out::Port::Chunk const& chunk) {
  With& with = withs_[static_cast<std::size_t>(chunk.neighbour)];
  std::int32_t index = 0;
  std::memcpy(&index, chunk.memory.data(), sizeof index);
  check(index >= 0 && index < static_cast<int>(with.seen.size()), "call ", epoch_, ", rank ", with.rank,
        ": chunk number ", index, " of ", with.seen.size());
  auto const i = static_cast<std::size_t>(index);
  check(!with.seen[i], "call ", epoch_, ": chunk ", index, " came twice");
  with.seen[i] = true;
  ++with.num_seen;
  std::size_t const bytes = traffic_.chunk_bytes(epoch_, with.rank, rank_, index);
  std::uint64_t const key = mix(traffic_.seed, chunk_key, epoch_, with.rank, rank_, index);
  check_equal(first_wrong(chunk.memory.first(bytes), key, sizeof index), bytes, "bytes of chunk ", index,
              " of call ", epoch_, " from rank ", with.rank);
}

void Caller::give_some_back() {
  if (held_.empty() || random_.chance(30)) return;
  std::swap(held_.back(), held_[static_cast<std::size_t>(random_.below(static_cast<std::int64_t>(held_.size())))]);
  port_.give_back(held_.back());
  held_.pop_back();
  ++credits_;
}

}  // namespace switchyard::test
