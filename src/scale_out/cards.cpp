#include "scale_out/cards.hpp"

#include "job/failure.hpp"

namespace switchyard::scale_out {

Cards exchange_cards(Job& job, std::function<void(MessageWriter&)> const& step) {
  MessageWriter card;
  auto const failure = failure_of([&] { step(card); });
  MessageWriter mine;
  put_failure(mine, failure);
  if (!failure) mine.put_bytes(card.bytes());
  Cards all{.bytes = gathered_or(failure, [&] { return job.all_gather(mine.bytes()); }), .readers = {}};
  for (std::size_t rank = 0; rank < all.bytes.size(); ++rank) {
    MessageReader message(all.bytes[rank], "what a rank tells of its way between nodes");
    throw_failure_in(message, static_cast<int>(rank));
    all.readers.emplace_back(message.get_bytes(), "what a rank tells of its way between nodes");
  }
  return all;
}

}  // namespace switchyard::scale_out
