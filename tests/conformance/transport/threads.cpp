// Ranks as threads, each with its endpoint, in rounds as engines have them: everybody writes to everybody, some are
// ahead by a round, and memory is used again when credits and completions allow it.
#include <atomic>

#include "conformance/transport/suite.hpp"
#include "support/meeting.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "transport/arrivals.hpp"

namespace switchyard::test {
namespace {

using transport::Arrivals;
using transport::Event;
using transport::Write;

constexpr std::size_t chunk = 777;
constexpr std::size_t parities = 2;

class RoundsOfRank {
 public:
  RoundsOfRank(Mesh& mesh, int rank, std::uint64_t seed)
      : mesh_(mesh),
        self_(mesh[rank]),
        rank_(rank),
        seed_(seed),
        arrivals_(2, mesh.size(), 1000),
        sent_(static_cast<std::size_t>(mesh.size()) * parities) {}

  void run(std::uint64_t rounds) {
    for (std::uint64_t round = 1; round <= rounds; ++round) {
      // A source that is slow now and then makes the others run ahead.
      if (mix(seed_, rank_, round) % 4 == 0) std::this_thread::yield();
      arrivals_.begin(data, round);
      for_peers([&](int peer) { send(peer, round); });
      wait([&] { return !missing(data); }, "the data of a round");
      for_peers([&](int peer) { check(peer, round); });
      for_peers([&](int peer) { give_back(peer, round); });
      if (round > 1) {
        wait([&] { return !missing(credits); }, "the credits of a round");
      }
      arrivals_.begin(credits, round);
    }
  }
  // Peers need this rank's polls until they are done as well.
  bool poll() {
    return transport::poll_once(*self_.endpoint, [this](Event const& event) { take(event); });
  }

 private:
  static constexpr int data = 0;
  static constexpr int credits = 1;
  static constexpr std::uint64_t credit_context = ~std::uint64_t{1};

  template <typename Body>
  void for_peers(Body const& body) {
    for (int distance = 1; distance < mesh_.size(); ++distance) body((rank_ + distance) % mesh_.size());
  }
  [[nodiscard]] bool missing(int channel) const {
    std::vector<std::uint32_t> expected(static_cast<std::size_t>(mesh_.size()), 1);
    expected[static_cast<std::size_t>(rank_)] = 0;
    return arrivals_.first_missing(channel, expected).has_value();
  }
  [[nodiscard]] std::uint64_t key(int from, int to, std::uint64_t round) const {
    return mix(seed_, from, to, round);
  }
  // By who it is exchanged with, and the parity of the round.
  static std::size_t place(int peer, std::uint64_t round) {
    return static_cast<std::size_t>(peer) * parities + round % parities;
  }
  static std::size_t offset(int peer, std::uint64_t round) { return place(peer, round) * chunk; }
  void wait(std::function<bool()> const& done, char const* what) {
    transport::poll_until(*self_.endpoint, done, what, Mesh::patience("a peer"),
                          [this](Event const& e) { take(e); });
  }
  void post(int peer, Write const& write) {
    transport::post_by(*self_.endpoint, write, Mesh::patience("member " + std::to_string(peer)),
                       [this](Event const& event) { take(event); });
  }

  // The credit of round - 2, which says that the peer has read this place, came before: run() has waited for it.
  void send(int peer, std::uint64_t round) {
    std::uint64_t const earlier = (round - 1) / parities;  // writes from the same place
    wait([&] { return sent_.at(place(peer, round)) == earlier; }, "memory of an earlier round");
    auto const bytes = std::span(self_.source_bytes).subspan(offset(peer, round), chunk);
    fill_payload(bytes, key(rank_, peer, round));
    Write write = mesh_.write(rank_, peer);
    write.from = self_.source.get();
    write.from_offset = offset(peer, round);
    write.into_offset = offset(rank_, round);
    write.bytes = chunk;
    write.immediate = transport::immediate_of({.channel = data, .source = rank_, .epoch = round});
    write.context = place(peer, round);
    post(peer, write);
  }
  void check(int peer, std::uint64_t round) {
    auto const bytes = std::span(self_.landing_bytes).subspan(offset(peer, round), chunk);
    EXPECT_EQ(first_difference(bytes, key(peer, rank_, round)), chunk) << "round " << round << " from " << peer;
  }
  void give_back(int peer, std::uint64_t round) {
    Write write = mesh_.write(rank_, peer);
    write.immediate = transport::immediate_of({.channel = credits, .source = rank_, .epoch = round});
    write.context = credit_context;
    post(peer, write);
  }
  void take(Event const& event) {
    if (event.kind == Event::Kind::arrived) {
      auto const taken = arrivals_.take(event.immediate);
      EXPECT_NE(taken.when, Arrivals::When::late);
    } else {
      EXPECT_EQ(event.kind, Event::Kind::sent);
      if (event.context != credit_context) ++sent_.at(event.context);
    }
  }

  Mesh& mesh_;
  Member& self_;
  int rank_;
  std::uint64_t seed_;
  Arrivals arrivals_;
  std::vector<std::uint64_t> sent_;  // by place, writes whose memory is free again
};

TEST_P(TransportSuite, RanksAsThreads) {
  for_each_seed([](std::uint64_t seed) {
    constexpr int ranks = 3;
    Mesh mesh(GetParam(), ranks, ranks * parities * chunk, seed);
    std::atomic<int> done{0};  // pairs nothing: it only says how many are
    run_threads(ranks, [&](int rank) {
      try {
        RoundsOfRank self(mesh, rank, seed);
        self.run(static_cast<std::uint64_t>(by_scale(6, 12)));
        done.fetch_add(1, std::memory_order_relaxed);
        Deadline const deadline(hang_deadline);
        while (done.load(std::memory_order_relaxed) < ranks && !deadline.expired())
          if (!self.poll()) std::this_thread::yield();
      } catch (std::exception const& error) {
        ADD_FAILURE() << "member " << rank << ": " << error.what();
      }
    });
    EXPECT_EQ(done.load(), ranks);
  });
}

}  // namespace
}  // namespace switchyard::test
