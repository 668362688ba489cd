// Work that a stream does one launch after the other, each along lists in pinned memory, and what is to be done on
// the host when one has ended: a chunk is sent, or its slot given back.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/deadline.hpp"
#include "control/signals.hpp"
#include "engine/cuda/host/device_event.hpp"
#include "engine/cuda/host/pinned_memory.hpp"

namespace switchyard::cuda {

// Part of a batch's memory, filled from its beginning.
template <typename T>
class List {
 public:
  List() = default;
  explicit List(std::span<T> room) : room_(room) {}
  [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t left() const noexcept { return room_.size() - size_; }
  [[nodiscard]] T const* data() const noexcept { return room_.data(); }
  // There must be room left.
  void add(T const& item) { room_[size_++] = item; }

 private:
  std::span<T> room_{};
  std::uint32_t size_ = 0;
};

// Cuts eighths of a batch's memory for a list.
template <typename T>
std::span<T> eighths_of(std::span<std::byte> memory, std::size_t before, std::size_t count) {
  std::size_t const eighth = memory.size() / 8;
  return {reinterpret_cast<T*>(memory.data() + before * eighth), count * eighth / sizeof(T)};
}

class Batches {
 public:
  // So many launches may be under way, each with lists of so many bytes.
  static constexpr std::size_t most = 4;
  static constexpr std::size_t bytes = std::size_t{2} << 20;

  // `rank` of the job, for errors. The stream must outlive it.
  Batches(int device, cudaStream_t stream, int rank);

  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_; }
  [[nodiscard]] bool idle() const noexcept { return under_way_.empty(); }
  // Whether there is memory for the lists of another launch, and that memory.
  [[nodiscard]] bool has_room() const noexcept { return under_way_.size() < most; }
  [[nodiscard]] std::span<std::byte> room() const noexcept;
  // The launch that reads room() is in the stream; `then` runs when it has ended.
  void launched(std::vector<std::function<void()>> then);
  // Runs what waits for launches that have ended, in their order; returns whether one has. Fails the buffer when
  // the GPU reports an error, or a launch takes longer than the timeout.
  bool turn(Signals& signals);
  // Turns until nothing is under way. `meanwhile` runs between them.
  void drain(Signals& signals, std::function<void()> const& meanwhile);
  // Waits for the stream and forgets what was to follow: the call has failed. Launches wait for nobody, so they
  // end.
  void abandon() noexcept;

 private:
  struct Launch {
    std::size_t number = 0;
    Deadline::Clock::time_point since{};
    std::vector<std::function<void()>> then{};
  };
  void check(Signals& signals) const;

  cudaStream_t stream_;
  int rank_;
  PinnedMemory memory_;
  std::vector<std::unique_ptr<DeviceEvent>> events_;  // by number, modulo their count
  std::size_t next_ = 0;                              // number of the next launch
  std::deque<Launch> under_way_;
};

}  // namespace switchyard::cuda
