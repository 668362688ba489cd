// Chunks to and from the rail neighbours of a rank. A chunk that finds no slot free at its neighbour is kept, so
// who sends never waits: a neighbour may be between the halves of its call. What has come stays in its slot until
// somebody can use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/deadline.hpp"
#include "job/job.hpp"
#include "layout/node_in_job.hpp"
#include "scale_out/port.hpp"
#include "scale_out/ways.hpp"

namespace switchyard::cpu {

// The chunks of one half of a call.
struct Leaving {
  std::size_t kept = 0;  // not even posted
  std::vector<scale_out::Port::Room> rooms{};
};

class Rails {
 public:
  // Collective over the job.
  Rails(std::shared_ptr<Job> job, NodeInJob const& node, scale_out::PortSizes const& sizes);

  [[nodiscard]] std::span<scale_out::Way const> ways() const noexcept { return ways_; }
  [[nodiscard]] std::span<scale_out::Served const> served() const noexcept { return served_; }
  [[nodiscard]] int num_neighbours() const noexcept { return static_cast<int>(port_.neighbours().size()); }
  [[nodiscard]] Member const& member(int neighbour) const {
    return port_.neighbours()[static_cast<std::size_t>(neighbour)];
  }
  [[nodiscard]] int number_of(int rank) const noexcept { return port_.number_of(rank); }
  [[nodiscard]] std::size_t slot_bytes() const noexcept { return port_.sizes().slot_bytes; }

  // A neighbour that is not masked any more.
  void begin_with(int neighbour) { words_[static_cast<std::size_t>(neighbour)] = {}; }
  // Sends what `write(memory)` writes, which returns its bytes.
  template <typename Write>
  void send(int neighbour, std::shared_ptr<Leaving> const& leaving, Write const& write) {
    auto& kept = kept_[static_cast<std::size_t>(neighbour)];
    if (kept.empty()) {
      if (auto const room = port_.room_for(neighbour)) {
        port_.send(*room, write(room->memory));
        leaving->rooms.push_back(*room);
        return;
      }
    }
    std::vector<std::byte> bytes(slot_bytes());
    bytes.resize(write(std::span(bytes)));
    bytes.shrink_to_fit();
    kept.push_back({std::move(bytes), leaving});
    ++leaving->kept;
  }
  // The last thing that a neighbour gets before it is given up: there is a room for it from the beginning.
  template <typename Write>
  void send_last(int neighbour, Write const& write) {
    auto& room = last_rooms_[static_cast<std::size_t>(neighbour)];
    if (room) port_.send(*room, write(room->memory));
    room.reset();
  }
  // To a neighbour that is masked, in each call: in the place of all that it has not been sent yet, but for the
  // first such word. This rank does not wait for it, and may be calls ahead of the one in which it has to learn of
  // the mask.
  template <typename Write>
  void send_instead(int neighbour, Write const& write) {
    forget_behind_first_word(neighbour);
    auto const leaving = std::make_shared<Leaving>();
    auto& kept = kept_[static_cast<std::size_t>(neighbour)];
    std::size_t const before = kept.size();
    if (auto const room = before == 0 ? room_for_word(neighbour) : std::nullopt) {
      port_.send(*room, write(room->memory));
      leaving->rooms.push_back(*room);
    } else {
      send(neighbour, leaving, write);
    }
    if (kept.size() > before) kept.back().is_word = true;
    Word& word = words_[static_cast<std::size_t>(neighbour)];
    if (word.first == nullptr) word.first = leaving;
  }
  // Of the neighbours that this rank does without (those given up, and those that `without(neighbour)` says), one
  // that something is still under way to, be it the first word that it is masked; -1: none.
  [[nodiscard]] int last_under_way_to(std::function<bool(int)> const& without) const;
  // What goes to the neighbour is not waited for any more, until its mask is taken off.
  void stop_waiting_for(int neighbour) { words_[static_cast<std::size_t>(neighbour)].takes_nothing = true; }
  // Whether it was sent: there is room at once, or it is not.
  template <typename Write>
  bool send_if_room(int neighbour, Write const& write) {
    auto room = room_for_word(neighbour);
    if (!room && kept_[static_cast<std::size_t>(neighbour)].empty()) room = port_.room_for(neighbour);
    if (room) port_.send(*room, write(room->memory));
    return room.has_value();
  }
  // A neighbour for which not all of it has left; -1: none. Those that `skip(neighbour)` says do not count.
  template <typename Skip>
  [[nodiscard]] int holds(Leaving& leaving, Skip const& skip) const {
    std::erase_if(leaving.rooms, [&](scale_out::Port::Room const& room) {
      return given_up(room.neighbour) || port_.has_left(room) || skip(room.neighbour);
    });
    if (!leaving.rooms.empty()) return leaving.rooms.front().neighbour;
    for (int neighbour = 0; leaving.kept > 0 && neighbour < num_neighbours(); ++neighbour) {
      if (skip(neighbour)) continue;
      for (Kept const& each : kept_[static_cast<std::size_t>(neighbour)])
        if (each.leaving.get() == &leaving) return neighbour;
    }
    return -1;
  }

  // The chunks that have come from a neighbour and were not used yet. `use(memory)` says whether it is done with
  // one.
  template <typename Use>
  bool take(int neighbour, Use const& use) {
    auto& chunks = chunks_[static_cast<std::size_t>(neighbour)];
    bool any = false;
    for (auto chunk = chunks.begin(); chunk != chunks.end();) {
      if (!use(chunk->memory)) {
        ++chunk;
        continue;
      }
      port_.give_back(*chunk);
      chunk = chunks.erase(chunk);
      any = true;
    }
    return any;
  }

  // Makes progress: writes and chunks, and what neighbours say. Throws what ended a call elsewhere, but not in an
  // earlier half, which ends well: who fails in a half has done its part in all before. A neighbour to which writes
  // fail is given up where `may_do_without(neighbour)`.
  void turn(std::function<bool(int)> const& may_do_without);

  // Whether the neighbour has gone, and a while ago: what it sent before may still come at first.
  [[nodiscard]] bool is_lost(int neighbour);
  // From here on nothing is written to it.
  void give_up(int neighbour);
  [[nodiscard]] bool given_up(int neighbour) const { return port_.given_up(neighbour); }
  // Whom a neighbour said that it waits for, in a wait of this call; -1: nobody.
  [[nodiscard]] int blamed_by(int neighbour) const { return blamed_[static_cast<std::size_t>(neighbour)]; }

  // Begins a half of a call. All ranks make the same in the same order.
  void begin_half() {
    ++half_;
    blamed_.assign(blamed_.size(), -1);
  }
  void say_held_up(int culprit) noexcept;
  // Tells other nodes why this rank makes no further calls, unless they know. `halves_ahead`: 0 when the present
  // half has failed, 1 when it has ended well and there will be no next one.
  void say_failed(Error const& error, std::uint64_t halves_ahead) noexcept;

  // Step of a reset; see Port::drain().
  void drain();

  [[nodiscard]] WireCount const& sent() const noexcept { return port_.sent(); }

 private:
  struct Kept {
    std::vector<std::byte> bytes;
    std::shared_ptr<Leaving> leaving;
    bool is_word = false;  // see send_instead()
  };
  // What there is to know of a neighbour since it was masked.
  struct Word {
    std::shared_ptr<Leaving> first{};
    bool takes_nothing = false;  // it was waited for once, in vain
  };
  void begin();
  void keep_room_for_words();
  void post_kept(int neighbour);
  void forget_kept(int neighbour);
  void forget_behind_first_word(int neighbour);
  // The room that is kept for words, if it is free.
  std::optional<scale_out::Port::Room> room_for_word(int neighbour) {
    return std::exchange(word_rooms_[static_cast<std::size_t>(neighbour)], std::nullopt);
  }
  void poll(std::function<bool(int)> const& may_do_without);
  void take_notice(scale_out::Notice const& notice);

  std::shared_ptr<Job> job_;
  scale_out::Port port_;
  std::uint64_t generation_ = 1;  // the port's epoch: its chunks say which call they are of
  std::vector<scale_out::Way> ways_;
  std::vector<scale_out::Served> served_;
  std::vector<std::deque<Kept>> kept_;                            // by neighbour
  std::vector<std::list<scale_out::Port::Chunk>> chunks_;         // by neighbour
  std::vector<std::optional<scale_out::Port::Room>> last_rooms_;  // by neighbour
  std::vector<std::optional<scale_out::Port::Room>> word_rooms_;  // by neighbour; none: one is under way
  std::vector<Word> words_;                                       // by neighbour
  std::vector<int> blamed_;                                       // by neighbour
  std::vector<std::optional<Deadline>> lost_until_;               // by neighbour
  std::uint64_t half_ = 0;
  std::uint64_t failed_half_ = 0;  // in which a neighbour has failed
  std::optional<Error> failure_;   // that a neighbour has said
  bool others_know_ = false;       // that this node has failed
};

}  // namespace switchyard::cpu
