// Results of the low-latency mode that other streams still read when they are released: their frames are given back
// when these have.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "layout/slots.hpp"
#include "memory/block_readers.hpp"
#include "memory/device/cuda_check.hpp"
#include "memory/stream_uses.hpp"
#include "memory/symmetric_heap.hpp"

namespace switchyard::cuda {

// Any thread may release a result; one at a time makes calls.
class ReadBays final : private StreamUses {
 public:
  ReadBays(std::shared_ptr<SymmetricHeap> heap, SlotLayoutBytes const& at, int device);
  ~ReadBays() override;

  // A result is released: the streams that read it besides the one of all calls.
  [[nodiscard]] std::vector<std::uintptr_t> take_readers(int bay) {
    return readers_.take(static_cast<std::size_t>(bay));
  }
  // Gives its frame back in the first call after `readers` are done with what they have so far.
  void defer(int frame, std::span<std::uintptr_t const> readers, std::function<void()> give_back);
  // Waits for all readers, and gives the frames back: replays of graphs, which may come next, do not ask for them.
  void flush();

  // A call begins on `stream`.
  void begin_call(cudaStream_t stream, bool captured);
  // A dispatch takes the frame: what is queued on `stream` from here on comes behind what reads its result.
  void take(int frame, cudaStream_t stream);

 private:
  struct Leaving {
    int frame;
    std::unique_ptr<StreamFence> fence;
    std::function<void()> give_back;
  };

  bool note(std::byte const* at, std::uintptr_t stream) noexcept override;
  template <typename Which>
  [[nodiscard]] std::vector<Leaving> extract(Which const& which);

  std::shared_ptr<SymmetricHeap> heap_;
  SlotLayoutBytes at_;
  int device_;
  BlockReaders readers_;  // by bay
  std::mutex mutex_;      // guards what follows
  std::vector<Leaving> leaving_;
  StreamUses::Entry entry_{*this};  // last
};

}  // namespace switchyard::cuda
