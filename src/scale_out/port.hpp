// One rank's way to ranks of other nodes: its rail neighbours, and nobody else. When a call opens, each neighbour
// gets a letter; then chunks go into slots of a ring that the neighbour gives back one by one. Engines of both
// modes use it, and see no transport.
//
// One thread at a time uses a port, and nothing moves but within its calls: a rank that waits for anything keeps
// calling poll(), because its neighbours' writes may need that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "job/job.hpp"
#include "node/member.hpp"
#include "scale_out/notice.hpp"
#include "scale_out/port_sizes.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::scale_out {

// Makes memory that chunks go through fit for whoever fills them, before the first is there. What it returns undoes
// that, and goes before the memory does.
using PinMemory = std::function<std::shared_ptr<void>(std::span<std::byte> memory)>;

class Port {
 public:
  // Collective over the job, which has several nodes. Throws Unsupported, InvalidArgument or SystemError on every
  // rank alike, as Job's own collectives do.
  Port(std::shared_ptr<Job> job, PortSizes const& sizes, PinMemory const& pin = {});
  ~Port();
  Port(Port const&) = delete;
  Port& operator=(Port const&) = delete;

  // In the order of ranks. Functions below number them so.
  [[nodiscard]] std::span<Member const> neighbours() const noexcept;
  // Number of a rank that is a neighbour; -1: it is none.
  [[nodiscard]] int number_of(int rank) const noexcept;
  [[nodiscard]] PortSizes const& sizes() const noexcept;

  // Begins call `epoch`, which follows the one before: letters and chunks below are of this call. Those that came
  // for it already are there; chunks of earlier calls that nobody has taken are given back. Waits for nothing.
  void begin(std::uint64_t epoch);

  // Memory of the letter to a neighbour in this call; nothing while the letter of four epochs ago is under way.
  [[nodiscard]] std::optional<std::span<std::byte>> letter_to(int neighbour);
  void send_letter(int neighbour, std::size_t bytes);
  // The neighbour's letter of this epoch; nothing: it has not come. It may be longer than what was sent. It stays
  // until the fourth epoch after this one begins at the neighbour. The port does not see to that: its user must not
  // begin that epoch before every rank that it writes to is through with this one.
  [[nodiscard]] std::optional<std::span<std::byte const>> letter_from(int neighbour) const;

  // A free slot at the neighbour, and memory of this rank to fill it from.
  struct Room {
    int neighbour = 0;
    int slot = 0;  // at the neighbour
    int from = 0;  // send slot
    std::span<std::byte> memory{};
    std::uint64_t use = 0;  // of the send slot
  };
  // Nothing: the neighbour has given none back yet, or all send slots are under way. A room that was taken is sent
  // in the same call.
  [[nodiscard]] std::optional<Room> room_for(int neighbour);
  void send(Room const& room, std::size_t bytes);
  // Where there is no room for a neighbour: who keeps it from this rank. The neighbour itself, when it has given no
  // slot back, or whoever the own send slots wait for, which all neighbours share.
  [[nodiscard]] int keeps_room_from(int neighbour) const;
  // Whether the chunk that was sent from there has left this rank's memory, or cannot.
  [[nodiscard]] bool has_left(Room const& room) const;
  // Whether any chunk that was sent to the neighbour has not.
  [[nodiscard]] bool chunks_under_way_to(int neighbour) const;

  struct Chunk {
    int neighbour = 0;
    int slot = 0;
    std::span<std::byte const> memory{};  // the whole slot
  };
  // The next chunk of this call that has come from the neighbour, in the order in which they came; each once.
  [[nodiscard]] std::optional<Chunk> next_chunk(int neighbour);
  // Gives the slot back. Its memory is the neighbour's from here on.
  void give_back(Chunk const& chunk);

  // Makes progress; returns whether anything came. Throws PeerLost, which names the neighbour, when the transport
  // says that one is gone, and SystemError when it fails itself, or a neighbour breaks the rules.
  bool poll();
  // Whether all letters, and all chunks of this call, have left this rank's memory. A call ends with that: nobody
  // makes progress after it. Credits may still be under way: who waits for one waits for this rank's next call as
  // well. For it to become true neighbours may have to poll, which they do until they have all that was sent them
  // in this call.
  [[nodiscard]] bool all_sent() const noexcept;
  // A neighbour to which some of that is still to leave.
  [[nodiscard]] std::optional<int> unsent_to() const noexcept;
  // The same of letters alone. A call that all ranks refuse ends with that: who is through with it takes chunks of
  // it only in the next one, so they may have to stay until then.
  [[nodiscard]] std::optional<int> letters_unsent_to() const noexcept;
  // Whether the neighbour's process has ended, or has left the job. What it sent before may still come.
  [[nodiscard]] bool is_lost(int neighbour) const noexcept;
  // Whether this rank has said that calls have failed, or a notice has come that says so. Who has failed polls no
  // more.
  [[nodiscard]] bool has_failed() const noexcept;
  // Goes on without a neighbour until the next drain: nothing is written to it any more, and that writes to it fail
  // is no error. Those that are under way may stay so for ever, and keep the slots that they leave from.
  void give_up(int neighbour);
  [[nodiscard]] bool given_up(int neighbour) const;

  // To all neighbours, as far as that can be done at once. A failure is worth a short wait.
  void say(Notice const& notice) noexcept;
  // The notice of a failure of call `epoch`.
  void say_failed(Error const& error, std::uint64_t epoch) noexcept;
  // The next notice that has come; each once.
  [[nodiscard]] std::optional<Notice> heard();

  // Collective over the job, between two of its agreements in a reset (call/reset.hpp): no rank is in a call. When
  // it returns, nothing of any call is under way any more, and all slots are given back.
  void drain(std::uint64_t epoch);

  [[nodiscard]] WireCount const& sent() const noexcept;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard::scale_out
