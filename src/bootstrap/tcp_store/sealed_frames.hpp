// Frames with their tags: what one end of a connection seals, the other opens. Each has a number, which both count.
#pragma once

#include <cstddef>
#include <vector>

#include "bootstrap/mac.hpp"
#include "bootstrap/tcp_store/frame.hpp"

namespace switchyard {

// A frame as it goes over the wire, without its value, which lies between the two.
struct SealedFrame {
  std::vector<std::byte> head;
  Tag tag{};
};

class FrameSealer {
 public:
  explicit FrameSealer(MessageTags const& tags) : tags_(tags) {}
  // Frames are to be sent in the order in which they are sealed. Throws InvalidArgument, as encode_frame_head.
  SealedFrame seal(Frame const& frame);
  std::vector<std::byte> seal_whole(Frame const& frame);

 private:
  MessageTags tags_;
};

// Collects bytes of a peer that has shown that it knows the token, and takes frames out of them.
class FrameOpener {
 public:
  explicit FrameOpener(MessageTags const& tags) : tags_(tags) {}
  void append(ByteView bytes) { incoming_.insert(incoming_.end(), bytes.begin(), bytes.end()); }
  // The first whole frame, if its tag is right; malformed otherwise. Views hold until the next append() or
  // consume().
  [[nodiscard]] ParsedFrame next() const;
  // Drops it.
  void consume(ParsedFrame const& frame);

 private:
  MessageTags tags_;
  std::vector<std::byte> incoming_;
};

}  // namespace switchyard
