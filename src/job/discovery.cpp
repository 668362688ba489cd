#include "job/discovery.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "base/check.hpp"
#include "base/refusal.hpp"
#include "job/failure.hpp"
#include "job/message.hpp"
#include "node/agreement.hpp"
#include "node/link_socket.hpp"
#include "node/peer_card.hpp"

namespace switchyard {

namespace {

constexpr std::string_view answer_key = "job/nodes";

// What a rank says about itself. Its bytes are sent as they lie.
struct PlaceCard {
  std::uint32_t magic;
  std::uint32_t version;
  std::uint32_t size;
  std::uint32_t user;
  HostIdentity host;
  RandomBytes listener;  // of an abstract socket: as long as the rank waits for the answer, it listens there
  std::array<char, max_node_name + 1> node;  // ends with a 0; empty: none was given
};
static_assert(std::is_trivially_copyable_v<PlaceCard>);

std::string key_of(int rank) {
  return fmt::format("job/place/{}", rank);
}

std::string node_name(PlaceCard const& card) {
  return {card.node.data(), static_cast<std::size_t>(std::ranges::find(card.node, '\0') - card.node.begin())};
}

PlaceCard card_of(WhoAndWhere const& self, RandomBytes const& listener) {
  require(self.node.size() <= max_node_name && self.node.find('\0') == std::string::npos,
          "node (SWITCHYARD_NODE): expected at most {} bytes, none of them 0, seen '{}'", max_node_name, self.node);
  PlaceCard card{.magic = link_magic,
                 .version = link_version,
                 .size = static_cast<std::uint32_t>(self.size),
                 .user = static_cast<std::uint32_t>(::geteuid()),
                 .host = this_host(),
                 .listener = listener,
                 .node = {}};
  std::ranges::copy(self.node, card.node.begin());
  return card;
}

[[noreturn]] void late(WhoAndWhere const& self, int peer) {
  throw Timeout(fmt::format("rendezvous: rank {} of {} did not come in time", peer, self.size),
                {.rank = self.rank, .peer = peer, .phase = "rendezvous"});
}

PlaceCard checked_card(WhoAndWhere const& self, int rank, std::vector<std::byte> const& bytes) {
  PlaceCard card{};
  require(bytes.size() == sizeof card, "rendezvous: '{}' has {} bytes, expected {}", key_of(rank), bytes.size(),
          sizeof card);
  std::memcpy(&card, bytes.data(), sizeof card);
  require(card.magic == link_magic && card.version == link_version,
          "rendezvous: rank {} runs another version of Switchyard", rank);
  require(card.size == static_cast<std::uint32_t>(self.size),
          "rendezvous: rank {} says that the job has {} ranks, rank {} expected {}", rank, card.size, self.rank,
          self.size);
  return card;
}

// Of the ranks that have come, those of this machine must still be there. The others' nodes notice for themselves.
void check_alive(WhoAndWhere const& self, std::vector<PlaceCard> const& cards) {
  for (int rank = 0; rank < static_cast<int>(cards.size()); ++rank) {
    PlaceCard const& card = cards[static_cast<std::size_t>(rank)];
    UniqueFd probe;
    if (rank == self.rank || card.host != this_host()) continue;
    if (connect_abstract(socket_name_text(card.listener), probe) != ConnectOutcome::gone) continue;
    throw PeerLost(fmt::format("rendezvous: rank {} has left the job or died", rank),
                   {.rank = self.rank, .peer = rank, .phase = "rendezvous"});
  }
}

// Waits in slices, because the store does not show that a rank has died.
PlaceCard read_card(Store& store, WhoAndWhere const& self, std::vector<PlaceCard> const& before,
                    Deadline const& deadline) {
  constexpr std::chrono::milliseconds slice{500};
  auto const rank = static_cast<int>(before.size());
  for (;;) {
    try {
      return checked_card(self, rank, store.get(key_of(rank), Deadline(std::min(slice, deadline.remaining()))));
    } catch (Timeout const&) {
      if (deadline.expired()) late(self, rank);
      check_alive(self, before);
    }
  }
}

// By rank, the number of its node.
std::vector<int> number_nodes(Store& store, WhoAndWhere const& self, Deadline const& deadline) {
  using Place = std::tuple<std::string, std::string, std::uint64_t, std::uint32_t>;
  std::map<Place, int> numbers;
  std::vector<int> nodes;
  std::vector<PlaceCard> cards;
  while (static_cast<int>(cards.size()) < self.size) {
    PlaceCard const card = read_card(store, self, cards, deadline);
    cards.push_back(card);
    std::string const name = node_name(card);
    Place const place = name.empty() ? Place("", std::string(card.host.boot_id.data(), card.host.boot_id.size()),
                                             card.host.network_namespace, card.user)
                                     : Place(name, "", 0, 0);
    nodes.push_back(numbers.emplace(place, static_cast<int>(numbers.size())).first->second);
  }
  return nodes;
}

// Rank 0's answer: the numbers, or why there are none.
struct Answer {
  std::optional<Error> failure;
  std::vector<int> nodes;
};

std::vector<std::byte> bytes_of_answer(Answer const& answer) {
  MessageWriter message;
  put_failure(message, answer.failure);
  for (int const node : answer.nodes) message.put(static_cast<std::int32_t>(node));
  return message.bytes();
}

Answer answer_in(std::vector<std::byte> const& bytes, int rank) {
  MessageReader message(bytes, answer_key);
  Answer answer{.failure = failure_of([&] { throw_failure_in(message, rank); }), .nodes = {}};
  while (!message.at_end()) answer.nodes.push_back(message.get<std::int32_t>());
  return answer;
}

Answer make_answer(Store& store, WhoAndWhere const& self, Deadline const& deadline) {
  Answer answer;
  try {
    answer.nodes = number_nodes(store, self, deadline);
    static_cast<void>(Topology(answer.nodes));  // throws for a node of too many ranks
  } catch (Error const& error) {
    answer = {.failure = Error(error.code(), error.what(),
                               {.rank = self.rank, .peer = error.peer(), .phase = "rendezvous"}),
              .nodes = {}};
  }
  return answer;
}

// Who has not put a card into the store, as far as can be seen in a moment; rank 0 when nobody is missing, since it
// has not answered.
int first_missing(Store& store, WhoAndWhere const& self) {
  Deadline const soon(std::chrono::milliseconds{1000});
  int rank = 0;
  try {
    for (; rank < self.size && !soon.expired(); ++rank)
      static_cast<void>(
          store.get(key_of(rank), Deadline(std::min(soon.remaining(), std::chrono::milliseconds{100}))));
  } catch (Timeout const&) {
    return rank;
  }
  return 0;
}

// Rank 0 may have come later than this rank, and so give up later. When nothing has come by then, the ranks that
// are missing may be seen from here, too.
Answer await_answer(Store& store, WhoAndWhere const& self, Deadline const& deadline) {
  try {
    return answer_in(store.get(answer_key, deadline), self.rank);
  } catch (Timeout const&) {
    late(self, first_missing(store, self));
  }
}

std::string seen_key(int rank) {
  return fmt::format("job/seen/{}", rank);
}

// Rank 0 may serve the store, which goes with it. So it stays until those who may be about to read its refusal
// have, but not for long: those who have not come will not.
void wait_for_readers(Store& store, WhoAndWhere const& self) {
  Deadline const soon(std::chrono::milliseconds{1000});
  for (int rank = 1; rank < self.size && !soon.expired(); ++rank) {
    static_cast<void>(refusal_of([&] { static_cast<void>(store.get(seen_key(rank), soon)); }));
  }
}

}  // namespace

Topology discover_nodes(Store& store, WhoAndWhere const& self, Deadline const& deadline) {
  RandomBytes const name = random_bytes();
  UniqueFd const listener = listen_abstract(socket_name_text(name));
  store.set(key_of(self.rank), bytes_of(card_of(self, name)));
  Answer answer;
  if (self.rank == 0) {
    answer = make_answer(store, self, deadline);
    store.set(answer_key, bytes_of_answer(answer));
    if (answer.failure) wait_for_readers(store, self);
  } else {
    answer = await_answer(store, self, deadline);
    if (answer.failure) store.set(seen_key(self.rank), {});
  }
  if (answer.failure)
    throw_error(answer.failure->code(), answer.failure->what(),
                {.rank = self.rank, .peer = answer.failure->peer(), .phase = answer.failure->phase()});
  require(answer.nodes.size() == static_cast<std::size_t>(self.size), "{}: expected {} ranks, seen {}", answer_key,
          self.size, answer.nodes.size());
  return Topology(answer.nodes);
}

}  // namespace switchyard
