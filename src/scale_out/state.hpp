// What a port knows: of each neighbour its letters, the slots at both ends, notices, and how much has come.
// connect.cpp makes it, state.cpp has the calls of the engine, events.cpp what comes, drain.cpp the reset and the
// end.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/deadline.hpp"
#include "scale_out/mapping.hpp"
#include "scale_out/neighbours.hpp"
#include "scale_out/port.hpp"
#include "scale_out/port_layout.hpp"
#include "scale_out/proofs.hpp"
#include "scale_out/slots.hpp"
#include "scale_out/wires.hpp"
#include "transport/arrivals.hpp"

namespace switchyard::scale_out {

class Port::State {
 public:
  State(std::shared_ptr<Job> job, PortSizes const& sizes, PinMemory const& pin);

  // state.cpp
  [[nodiscard]] std::span<Member const> members() const noexcept { return members_; }
  [[nodiscard]] int number_of(int rank) const noexcept;
  [[nodiscard]] PortSizes const& sizes() const noexcept { return sizes_; }
  [[nodiscard]] bool is_lost(int neighbour) const noexcept;
  [[nodiscard]] WireCount const& sent() const noexcept { return wires_->sent(); }
  void begin(std::uint64_t epoch);
  std::optional<std::span<std::byte>> letter_to(int neighbour);
  void send_letter(int neighbour, std::size_t bytes);
  [[nodiscard]] std::optional<std::span<std::byte const>> letter_from(int neighbour) const;
  std::optional<Room> room_for(int neighbour);
  void send(Room const& room, std::size_t bytes);
  [[nodiscard]] int keeps_room_from(int neighbour) const;
  [[nodiscard]] bool has_left(Room const& room) const;
  [[nodiscard]] bool chunks_under_way_to(int neighbour) const {
    return wires_->open(static_cast<int>(checked(neighbour)), Channel::chunk) > 0;
  }
  void give_up(int neighbour);
  [[nodiscard]] bool given_up(int neighbour) const { return with(neighbour).given_up; }
  std::optional<Chunk> next_chunk(int neighbour);
  void give_back(Chunk const& chunk);
  bool poll();
  [[nodiscard]] bool all_sent() const noexcept;
  [[nodiscard]] std::optional<int> unsent_to() const noexcept;
  [[nodiscard]] std::optional<int> letters_unsent_to() const noexcept;
  [[nodiscard]] bool has_failed() const noexcept { return failed_; }
  void say(Notice const& notice);
  std::optional<Notice> heard();

  // drain.cpp
  void drain(std::uint64_t epoch);
  // Waits a while for what neighbours still take from this rank.
  void leave() noexcept;

 private:
  struct NoticePlace {
    bool under_way = false;
    bool untaken = false;  // by the neighbour
    [[nodiscard]] bool free() const noexcept { return !under_way && !untaken; }
  };
  struct With {
    explicit With(int slots) : there(slots), here(slots) {}

    std::array<bool, letter_places> letter_under_way{};  // by place
    bool letter_sent = false;                            // in this call
    bool letter_here = false;                            // of this call
    SlotsThere there;
    SlotsHere here;
    std::deque<int> chunks;  // slots that have come in this call, not handed out yet
    std::array<NoticePlace, notice_places> notices_out{};
    std::array<bool, notice_places> notices_here{};
    std::uint64_t arrived = 0;  // writes, of any kind, since the port was made
    std::string broken{};       // why a write has failed
    bool given_up = false;      // this rank goes on without it
    bool has_ended = false;     // its port has said farewell
  };
  struct SendSlot {
    enum class Is : std::uint8_t { free, taken, under_way };
    Is is = Is::free;
    int neighbour = 0;
    int slot = 0;
    std::uint64_t use = 0;
    std::uint64_t epoch = 0;  // in which it was sent
  };
  struct NoticeHere {
    int neighbour = 0;
    int place = 0;
  };
  static constexpr int num_epoch_channels = 2;  // letters and chunks belong to calls

  // state.cpp
  [[nodiscard]] int num_neighbours() const noexcept { return static_cast<int>(neighbours_.size()); }
  [[nodiscard]] std::size_t checked(int neighbour) const;
  [[nodiscard]] With& with(int neighbour) { return withs_[checked(neighbour)]; }
  [[nodiscard]] With const& with(int neighbour) const { return withs_[checked(neighbour)]; }
  [[nodiscard]] std::span<std::byte> memory(Place const& place) const;
  [[nodiscard]] PortLayout const& there(int neighbour) const { return layouts_there_[checked(neighbour)]; }
  // Where the letters of this epoch lie.
  [[nodiscard]] int letter_place() const noexcept { return static_cast<int>(epoch_ % letter_places); }
  void forget_calls(std::uint64_t epoch);
  void give_back_slot(int neighbour, int slot);
  void put_notice(int neighbour, int place, Notice const& notice);
  // Whether nothing is to be expected of the neighbour, nor to be sent to it.
  [[nodiscard]] bool is_gone(int neighbour) const;
  [[nodiscard]] bool failure_under_way(int culprit) const;

  // connect.cpp
  void connect(BackEnd const& back_end, PinMemory const& pin);
  [[nodiscard]] EndpointTerms endpoint_terms() const;
  void show_who_is_there();
  void send_proofs();
  void await_proofs();
  void let_proofs_leave();
  [[nodiscard]] std::optional<int> first_unproven() const;
  [[nodiscard]] std::optional<int> proofs_unsent_to() const;

  // events.cpp
  bool take_events();
  void take_end(WireEvent const& event);
  void take_failure(WireEvent const& event);
  void take_arrival(std::uint32_t immediate);
  void take_letter(transport::Arrivals::Taken const& taken);
  void take_chunk(transport::Arrivals::Taken const& taken);
  void take_proof(transport::Tag const& tag);
  void take_notice(transport::Tag const& tag);
  void expect(bool holds, int neighbour, std::string_view expected, std::string_view seen);
  void note(Error const& error);

  // drain.cpp
  [[nodiscard]] std::vector<std::uint64_t> exchange_counts();
  [[nodiscard]] std::optional<int> first_open(std::vector<std::uint64_t> const& expected) const;
  // Of a wait outside of calls, as its errors name it.
  struct Wait {
    char const* phase;
    char const* expected;   // of the neighbour, in time
    char const* hint = "";  // of its deadline
  };
  void check_wait(Wait const& wait, int neighbour, Deadline const& deadline) const;
  [[nodiscard]] bool needs(int neighbour) const;
  [[nodiscard]] bool has_words_for(int neighbour) const;
  void give_back_all();
  void warn_of_untaken(int neighbour, std::chrono::milliseconds waited) const;
  [[nodiscard]] bool knows_of_failure() const;
  void say_farewell();

  std::shared_ptr<Job> job_;
  PortSizes sizes_;
  std::vector<Neighbour> neighbours_;
  std::vector<Member> members_;
  std::optional<PortLayout> layout_;
  std::vector<PortLayout> layouts_there_;  // of the neighbours
  std::optional<Mapping> memory_;
  std::shared_ptr<void> pinned_;  // behind the memory, so that it goes first
  std::unique_ptr<Wires> wires_;  // before the memory goes, and the neighbours
  std::optional<Proofs> proofs_;

  std::uint64_t epoch_ = 0;
  std::optional<transport::Arrivals> arrivals_;
  std::vector<With> withs_;
  std::vector<SendSlot> send_slots_;
  std::vector<int> free_send_slots_;
  std::deque<NoticeHere> notices_;
  std::optional<Error> error_;  // the first that an event has shown
  bool failed_ = false;         // this rank or a neighbour has said that it goes no further
  bool draining_ = false;       // only counts what comes, and writes nothing new
  std::vector<WireEvent> events_;
};

}  // namespace switchyard::scale_out
