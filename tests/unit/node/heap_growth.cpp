// Ranks tell each other that their heaps grow. Each "rank" is a thread with mappings of its own, of host memory in
// the place of a GPU's: what one writes into new memory, all others read.
#include "node/heap_growth.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <thread>

#include "base/check.hpp"
#include "base/deadline.hpp"
#include "node/fd_message.hpp"
#include "node/link_socket.hpp"
#include "support/check.hpp"
#include "support/random.hpp"

namespace switchyard::test {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t page = 4096;
constexpr std::size_t most_bytes = 256 * page;

// Parts are memfds, mapped into addresses that were reserved.
class HostParts final : public Segment {
 public:
  HostParts() : Segment(0, most_bytes) {
    void* const at = ::mmap(nullptr, most_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(at != MAP_FAILED, "addresses");
    data_ = static_cast<std::byte*>(at);
  }
  ~HostParts() override { ::munmap(data_, most_bytes); }
  HostParts(HostParts const&) = delete;
  HostParts& operator=(HostParts const&) = delete;

  SegmentPart grow(std::size_t size) override {
    std::size_t const whole = (size + page - 1) / page * page;
    if (whole > most_bytes - bytes()) throw OutOfMemory("no addresses left");
    SegmentPart part{.offset = bytes(), .bytes = whole, .fd = UniqueFd(::memfd_create("part", MFD_CLOEXEC))};
    check(::ftruncate(part.fd.get(), static_cast<off_t>(whole)) == 0, "a memfd");
    map(part);
    return part;
  }
  void append(SegmentPart const& part) override {
    if (refuses) throw OutOfMemory("this rank has no room");
    require(part.offset == bytes() && part.bytes <= most_bytes - bytes(), "part: expected one at {}, seen {}",
            bytes(), part.offset);
    map(part);
  }
  void shrink(std::size_t size) override {
    if (size >= bytes()) return;
    ::mmap(data_ + size, bytes() - size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    set_bytes(size);
  }

  std::atomic<bool> refuses = false;  // seq_cst; the test's thread sets what the served thread reads

 private:
  void map(SegmentPart const& part) {
    void* const at =
        ::mmap(data_ + part.offset, part.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, part.fd.get(), 0);
    if (at == MAP_FAILED) throw_errno("mapping a part");
    set_bytes(part.offset + part.bytes);
  }
};

// All ranks of a node, in one process. at[i][j]: how rank i maps rank j's segment.
class Ranks {
 public:
  explicit Ranks(int count, milliseconds timeout = milliseconds{5000}) : gone(static_cast<std::size_t>(count)) {
    for (int rank = 0; rank < count; ++rank) {
      links.push_back(std::make_unique<GrowthLinks>());
      at.emplace_back();
      for (int peer = 0; peer < count; ++peer) at.back().push_back(std::make_shared<HostParts>());
    }
    for (int rank = 0; rank < count; ++rank) {
      GrowthLinks::Terms terms{.rank = rank, .own = own(rank), .timeout = timeout};
      for (int peer = 0; peer < count; ++peer) {
        if (peer != rank)
          terms.peers.push_back({peer, links[index(peer)]->address(), at[index(rank)][index(peer)]});
      }
      terms.is_gone = [this](int peer) { return gone[index(peer)].load(); };
      terms.spare = [] { return std::size_t{0}; };
      links[index(rank)]->start(std::move(terms));
    }
  }

  static std::size_t index(int rank) { return static_cast<std::size_t>(rank); }
  [[nodiscard]] std::shared_ptr<HostParts> const& own(int rank) const { return at[index(rank)][index(rank)]; }

  // Every rank that still is there sees what the owner writes, at every byte.
  void check_shared(int owner) {
    std::size_t const bytes = own(owner)->bytes();
    for (std::size_t i = 0; i < bytes; i += 512)
      own(owner)->data()[i] = static_cast<std::byte>(mix(i, bytes, owner));
    for (std::size_t rank = 0; rank < at.size(); ++rank) {
      if (gone[rank]) continue;
      Segment const& seen = *at[rank][index(owner)];
      check_equal(seen.bytes(), bytes, "rank ", rank, ": bytes of rank ", owner);
      for (std::size_t i = 0; i < bytes; i += 512)
        check(seen.data()[i] == static_cast<std::byte>(mix(i, bytes, owner)), "rank ", rank, ": byte ", i, " of ",
              owner);
    }
  }

  std::vector<std::unique_ptr<GrowthLinks>> links;
  std::vector<std::vector<std::shared_ptr<HostParts>>> at;
  std::vector<std::atomic<bool>> gone;  // seq_cst: set by the test, read by whoever waits
};

TEST(HeapGrowth, AllRanksMapWhatOneHasGrownBy) {
  Ranks ranks(5);
  for (int const pages : {1, 7, 3}) {
    for (int rank = 0; rank < 5; ++rank) {
      ranks.links[Ranks::index(rank)]->grow(static_cast<std::size_t>(pages + rank) * page - 5);
      ranks.check_shared(rank);
    }
  }
  for (int rank = 0; rank < 5; ++rank) {
    ranks.links[Ranks::index(rank)]->shrink(ranks.own(rank)->bytes() - page * static_cast<std::size_t>(3 + rank));
    ranks.check_shared(rank);
  }
  check_equal(ranks.own(2)->bytes(), 12 * page, "bytes that are left");
}

TEST(HeapGrowth, AllAtOnce) {
  Ranks ranks(8);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 8; ++rank) {
    threads.emplace_back([&, rank] {
      for (int i = 0; i < 20; ++i)
        ranks.links[Ranks::index(rank)]->grow(page * static_cast<std::size_t>(1 + i % 3));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int rank = 0; rank < 8; ++rank) ranks.check_shared(rank);
}

TEST(HeapGrowth, WhatOneRankRefusesNobodyHas) {
  Ranks ranks(3);
  ranks.links[0]->grow(2 * page);
  ranks.at[2][0]->refuses = true;
  try {
    ranks.links[0]->grow(page);
    FAIL() << "rank 2 has not mapped it";
  } catch (SystemError const& error) {
    check_names(error, {"rank 2", "this rank has no room"});
  }
  check_equal(ranks.own(0)->bytes(), 2 * page, "bytes");
  ranks.check_shared(0);
  ranks.at[2][0]->refuses = false;
  ranks.links[0]->grow(5 * page);
  ranks.check_shared(0);
}

TEST(HeapGrowth, NobodyWaitsForARankThatHasGone) {
  Ranks ranks(3);
  ranks.gone[1] = true;  // its socket still takes messages, for a moment
  ranks.links[1].reset();
  ranks.links[2]->grow(page);
  ranks.check_shared(2);
}

// A rank that is stopped: its socket takes messages, and nobody reads them.
TEST(HeapGrowth, ASilentRankIsNamed) {
  GrowthLinks silent;
  auto const own = std::make_shared<HostParts>();
  GrowthLinks links;
  GrowthLinks::Terms terms{.rank = 0, .own = own, .timeout = milliseconds{100}};
  terms.peers.push_back({.rank = 3, .address = silent.address(), .segment = std::make_shared<HostParts>()});
  terms.is_gone = [](int) { return false; };
  links.start(std::move(terms));
  try {
    links.grow(page);
    FAIL() << "rank 3 has not answered";
  } catch (Timeout const& error) {
    check_names(error, {"rank 3", "100 ms"});
  }
  check_equal(own->bytes(), std::size_t{0}, "bytes");
  // It is not waited for again.
  Deadline const soon(milliseconds{90});
  auto const error = expect_throw<Timeout>("a second growth", [&] { links.grow(page); });
  check_names(error, {"rank 3"});
  check(!soon.expired(), "the second growth waited, too");
}

// Whoever knows the name of a socket, and not its secret, is not obeyed.
TEST(HeapGrowth, StrangersAreIgnored) {
  Ranks ranks(2);
  std::string const name = socket_name_text(ranks.links[1]->address().name);
  AbstractAddress const to(name);
  UniqueFd const stranger = datagram_abstract("stranger-of-" + name);
  Random random(7);
  for (std::size_t bytes = 1; bytes < 600; bytes += 7) {
    std::vector<std::byte> junk(bytes);
    for (std::byte& each : junk) each = static_cast<std::byte>(random.bits());
    std::uint32_t const magic = 0x48475753;
    if (bytes >= sizeof magic) std::memcpy(junk.data(), &magic, sizeof magic);
    for (int tries = 0; send_with_fd_to({to.plain(), to.length}, stranger.get(), junk, stranger.get()) < 0;
         ++tries) {
      check(tries < 10000, "the queue is never emptied");
      std::this_thread::sleep_for(std::chrono::microseconds{100});
    }
  }
  ranks.links[0]->grow(3 * page);
  ranks.check_shared(0);
  ranks.check_shared(1);
}

}  // namespace
}  // namespace switchyard::test
