#include "job/failure.hpp"

#include "base/check.hpp"
#include "node/peer_exchange.hpp"

namespace switchyard {

void put_failure(MessageWriter& message, std::optional<Error> const& failure) {
  message.put(failure ? static_cast<std::int32_t>(failure->code()) : std::int32_t{0});
  if (!failure) return;
  message.put(static_cast<std::int32_t>(failure->peer()));
  message.put_text(failure->phase());
  message.put_text(failure->what());
}

void throw_failure_in(MessageReader& message, int rank) {
  auto const code = message.get<std::int32_t>();
  if (code == 0) return;
  auto const peer = message.get<std::int32_t>();
  std::string const phase = message.get_text();
  throw_error(error_code_of(static_cast<std::uint32_t>(code)), message.get_text(),
              {.rank = rank, .peer = peer, .phase = phase});
}

void step_together(Node& node, int rank, std::function<void()> const& step) {
  std::optional<Error> const failure = failure_of(step);
  MessageWriter mine;
  put_failure(mine, failure);
  for (auto const& each :
       gathered_or(failure, [&] { return node.all_gather(mine.bytes(), {.waits_elsewhere = true}); })) {
    MessageReader message(each, "what a rank of this node says of a step");
    throw_failure_in(message, rank);
  }
}

}  // namespace switchyard
