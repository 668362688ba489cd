// The mesh of Unix sockets: descriptors, losses, strangers.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <csignal>
#include <cstring>
#include <functional>
#include <thread>

#include "bootstrap/in_process_store.hpp"
#include "bootstrap/tcp_store/client.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "node/link_socket.hpp"
#include "node/node.hpp"
#include "node/peer_card.hpp"
#include "node/peer_links.hpp"
#include "node/peer_mesh.hpp"
#include "support/meeting.hpp"
#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using test::plenty;
using test::run_threads;

UniqueFd memfd_with(int number) {
  UniqueFd file(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(::write(file.get(), &number, sizeof number), static_cast<ssize_t>(sizeof number));
  return file;
}

int number_in(UniqueFd const& file) {
  int number = -1;
  EXPECT_EQ(::pread(file.get(), &number, sizeof number, 0), static_cast<ssize_t>(sizeof number));
  return number;
}

template <typename Condition>
bool soon(Condition const& condition, milliseconds timeout = milliseconds{2000}) {
  Deadline const deadline(timeout);
  while (!condition()) {
    if (deadline.expired()) return false;
    std::this_thread::sleep_for(milliseconds{5});
  }
  return true;
}

// A child process that is killed and reaped at the end, whatever happens.
class Child {
 public:
  // Forks before any thread is started; `body` gets the number that tell() sends.
  explicit Child(std::function<void(int)> const& body) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    UniqueFd const read_end(ends[0]);
    write_end_ = UniqueFd(ends[1]);
    pid_ = ::fork();
    if (pid_ != 0) return;
    write_end_.reset();  // so that the child ends with its parent
    int number = 0;
    if (::read(read_end.get(), &number, sizeof number) == static_cast<ssize_t>(sizeof number)) {
      try {
        body(number);
      } catch (std::exception const& error) {
        std::fprintf(stderr, "child: %s\n", error.what());
      }
    }
    ::_exit(0);
  }
  Child(Child const&) = delete;
  Child& operator=(Child const&) = delete;
  ~Child() { kill(); }
  void tell(int number) const {
    EXPECT_EQ(::write(write_end_.get(), &number, sizeof number), static_cast<ssize_t>(sizeof number));
  }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  UniqueFd write_end_;
  pid_t pid_ = -1;
};

[[noreturn]] void sleep_for_ever() {
  for (;;) ::pause();
}

TEST(Links, ThreadsExchangeDescriptors) {
  constexpr int size = 6;
  auto const store = std::make_shared<InProcessStore>();
  run_threads(size, [&](int rank) {
    Node node(store, rank, size, plenty);
    for (int round = 0; round < 3; ++round) {
      UniqueFd const mine = memfd_with(100 * round + rank);
      auto const all = node.exchange_fd(mine.get());
      ASSERT_EQ(all.size(), static_cast<std::size_t>(size));
      for (int peer = 0; peer < size; ++peer) {
        UniqueFd const& theirs = all[static_cast<std::size_t>(peer)];
        EXPECT_EQ(number_in(theirs), 100 * round + peer);
        EXPECT_NE(theirs.get(), mine.get());
        EXPECT_TRUE((::fcntl(theirs.get(), F_GETFD) & FD_CLOEXEC) != 0);
      }
    }
    node.barrier();
    EXPECT_FALSE(node.is_lost(rank));
  });
}

TEST(Links, BadDescriptorIsRefusedBeforeAnythingMoves) {
  Node node(std::make_shared<InProcessStore>(), 0, 1, plenty);
  EXPECT_THROW(node.exchange_fd(-1), SystemError);
  UniqueFd const mine = memfd_with(7);
  EXPECT_EQ(number_in(node.exchange_fd(mine.get())[0]), 7);
}

TEST(Links, KilledProcessIsNoticed) {
  Child child([](int port) {
    auto const store =
        std::make_shared<TcpStoreClient>(HostPort{"127.0.0.1", static_cast<std::uint16_t>(port)}, "t", plenty);
    Node const node(store, 1, 2, plenty);
    sleep_for_ever();
  });
  TcpStoreServer const server({.listen = "127.0.0.1", .port = 0, .token = "t"});
  child.tell(server.port());
  auto const store = std::make_shared<TcpStoreClient>(HostPort{"127.0.0.1", server.port()}, "t", plenty);
  Node node(store, 0, 2, plenty);
  EXPECT_FALSE(node.is_lost(1));
  child.kill();
  EXPECT_TRUE(soon([&] { return node.is_lost(1); }));
  EXPECT_THROW(node.barrier(), PeerLost);
}

// Data loaders fork: their copies of the sockets stay open when the rank dies.
TEST(Links, KilledProcessWithALivingChildIsNoticed) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  UniqueFd const until_closed(ends[0]);
  UniqueFd keep(ends[1]);
  Child child([&](int port) {
    keep.reset();
    auto const store =
        std::make_shared<TcpStoreClient>(HostPort{"127.0.0.1", static_cast<std::uint16_t>(port)}, "t", plenty);
    Node node(store, 1, 2, plenty);
    if (::fork() == 0) {
      char byte = 0;
      [[maybe_unused]] auto const end = ::read(until_closed.get(), &byte, 1);  // the test's end
      ::_exit(0);
    }
    node.barrier();
    sleep_for_ever();
  });
  TcpStoreServer const server({.listen = "127.0.0.1", .port = 0, .token = "t"});
  child.tell(server.port());
  auto const store = std::make_shared<TcpStoreClient>(HostPort{"127.0.0.1", server.port()}, "t", plenty);
  Node node(store, 0, 2, plenty);
  node.barrier();
  UniqueFd const probe(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  if (!probe) GTEST_SKIP() << "no pidfd_open here";
  std::thread killer([&] {
    std::this_thread::sleep_for(milliseconds{100});
    child.kill();
  });
  EXPECT_THROW(node.barrier(), PeerLost);
  EXPECT_TRUE(soon([&] { return node.is_lost(1); }));
  killer.join();
}

TEST(Links, ARankThatDiesWhileOthersGatherIsNoticed) {
  auto const store = std::make_shared<InProcessStore>();
  run_threads(3, [&](int rank) {
    if (rank == 2) return;  // never comes
    if (rank == 1) {        // comes and goes
      EXPECT_THROW(Node(store, 1, 3, milliseconds{100}), Timeout);
      return;
    }
    Deadline const soon_enough(milliseconds{10000});
    EXPECT_THROW(Node(store, 0, 3, plenty), PeerLost);
    EXPECT_FALSE(soon_enough.expired());
  });
}

TEST(Links, TimeoutNamesTheRankThatDidNotCome) {
  try {
    Node const node(std::make_shared<InProcessStore>(), 0, 2, milliseconds{100});
    FAIL();
  } catch (Timeout const& error) {
    EXPECT_EQ(error.peer(), 1);
    EXPECT_NE(std::string(error.what()).find("rank 1"), std::string::npos) << error.what();
  }
}

TEST(Links, RanksThatDisagreeOnTheSizeAreRefused) {
  auto const store = std::make_shared<InProcessStore>();
  run_threads(2, [&](int rank) { EXPECT_THROW(Node(store, rank, rank == 0 ? 2 : 3, plenty), InvalidArgument); });
}

PeerCard card_of(Store& store, int rank) {
  auto const bytes = store.get("node/card/" + std::to_string(rank), Deadline(plenty));
  PeerCard card{};
  EXPECT_EQ(bytes.size(), sizeof card);
  std::memcpy(&card, bytes.data(), sizeof card);
  return card;
}

TEST(Links, ARankOnAnotherHostIsUnsupported) {
  auto const store = std::make_shared<InProcessStore>();
  PeerCard card{.magic = link_magic,
                .version = link_version,
                .rank = 1,
                .size = 2,
                .pid = 1,
                .socket_name = {},
                .host = this_host()};
  card.host.boot_id[0] = card.host.boot_id[0] == 'a' ? 'b' : 'a';
  store->set("node/card/1", std::as_bytes(std::span(&card, 1)));
  try {
    Node const node(store, 0, 2, plenty);
    FAIL();
  } catch (Unsupported const& error) {
    EXPECT_EQ(error.peer(), 1);
  }
}

TEST(Links, StrangersAreClosedAndTheMeshIsBuilt) {
  auto const store = std::make_shared<InProcessStore>();
  std::thread first([&] {
    Node node(store, 0, 2, plenty);
    node.barrier();
  });
  std::string const name = socket_name_text(card_of(*store, 0).socket_name);
  UniqueFd silent;
  UniqueFd noisy;
  UniqueFd impostor;
  ASSERT_EQ(connect_abstract(name, silent), ConnectOutcome::connected);
  ASSERT_EQ(connect_abstract(name, noisy), ConnectOutcome::connected);
  ASSERT_EQ(connect_abstract(name, impostor), ConnectOutcome::connected);
  std::string const noise(1000, 'x');
  EXPECT_GT(::send(noisy.get(), noise.data(), noise.size(), MSG_NOSIGNAL), 0);
  LinkHello const hello{.magic = link_magic, .version = link_version, .rank = 1, .secret = {}};
  EXPECT_GT(::send(impostor.get(), &hello, sizeof hello, MSG_NOSIGNAL), 0);
  Node node(store, 1, 2, plenty);
  node.barrier();
  first.join();
  char byte = 0;
  for (UniqueFd const* const stranger : {&silent, &noisy, &impostor}) {
    EXPECT_TRUE(wait_for(stranger->get(), POLLIN, Deadline(plenty)));
    EXPECT_LE(::recv(stranger->get(), &byte, 1, 0), 0);
  }
}

}  // namespace
}  // namespace switchyard
