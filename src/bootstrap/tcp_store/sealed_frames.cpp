#include "bootstrap/tcp_store/sealed_frames.hpp"

#include <utility>

namespace switchyard {

SealedFrame FrameSealer::seal(Frame const& frame) {
  SealedFrame sealed{.head = encode_frame_head(frame)};
  sealed.tag = tags_.tag({sealed.head, frame.value});
  tags_.advance();
  return sealed;
}

std::vector<std::byte> FrameSealer::seal_whole(Frame const& frame) {
  SealedFrame sealed = seal(frame);
  sealed.head.insert(sealed.head.end(), frame.value.begin(), frame.value.end());
  sealed.head.insert(sealed.head.end(), sealed.tag.begin(), sealed.tag.end());
  return std::move(sealed.head);
}

ParsedFrame FrameOpener::next() const {
  ParsedFrame const parsed = parse_frame(incoming_);
  if (parsed.status != FrameStatus::complete || equal_in_constant_time(parsed.tag, tags_.tag({parsed.covered})))
    return parsed;
  ParsedFrame wrong;
  wrong.status = FrameStatus::malformed;
  wrong.problem = "a frame that was changed on its way";
  return wrong;
}

void FrameOpener::consume(ParsedFrame const& frame) {
  tags_.advance();
  incoming_.erase(incoming_.begin(), incoming_.begin() + static_cast<std::ptrdiff_t>(frame.bytes));
}

}  // namespace switchyard
