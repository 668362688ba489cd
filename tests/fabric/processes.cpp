// Two processes, one of which may be killed.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <stdexcept>

#include "base/unique_fd.hpp"
#include "fabric/ends.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

using transport::Opaque;

void send_bytes(int fd, Opaque const& bytes) {
  std::size_t const size = bytes.size();
  if (write(fd, &size, sizeof size) != sizeof size) throw std::runtime_error("write failed");
  if (write(fd, bytes.data(), size) != static_cast<ssize_t>(size)) throw std::runtime_error("write failed");
}

Opaque receive_bytes(int fd) {
  std::size_t size = 0;
  if (read(fd, &size, sizeof size) != sizeof size) throw std::runtime_error("read failed");
  Opaque bytes(size);
  if (recv(fd, bytes.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size))
    throw std::runtime_error("read failed");
  return bytes;
}

void meet(End& own, int fd) {
  send_bytes(fd, own.endpoint->address());
  send_bytes(fd, own.region->key());
  own.peer = own.endpoint->add_peer(receive_bytes(fd), "the other process");
  own.target = own.endpoint->add_region(own.peer, receive_bytes(fd));
}

// A child process that opens an endpoint of its own.
class OtherProcess {
 public:
  explicit OtherProcess(std::function<void(int fd)> const& body) {
    int ends[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
      throw std::runtime_error("socketpair failed");
    fd_ = UniqueFd(ends[0]);
    UniqueFd const theirs(ends[1]);
    pid_ = fork();
    if (pid_ != 0) return;
    fd_.reset();
    try {
      body(theirs.get());
    } catch (std::exception const& error) {
      std::fprintf(stderr, "the other process: %s\n", error.what());
      _exit(1);
    }
    _exit(0);
  }
  OtherProcess(OtherProcess const&) = delete;
  OtherProcess& operator=(OtherProcess const&) = delete;
  ~OtherProcess() {
    if (pid_ > 0) end(SIGKILL);
  }

  [[nodiscard]] int fd() const { return fd_.get(); }
  // 0: waits for it to end by itself. Returns its status.
  int end(int signal) {
    if (signal != 0) kill(pid_, signal);
    int status = -1;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return status;
  }

 private:
  UniqueFd fd_;
  pid_t pid_ = -1;
};

constexpr std::size_t slot = 30000;
constexpr std::uint32_t slots = 200;

// What slot i holds when process `who` has written it.
std::byte byte_of(std::uint32_t i, std::size_t at, int who) {
  return static_cast<std::byte>(mix(i, at / 8, who) >> at % 8);
}

// Writes all slots of the other's second half from the first half of its own, and waits until it has all of theirs.
void write_and_check(Wish const& way, int fd, int who) {
  End own(EndpointOptions{way}, 2 * slot * slots);
  for (std::uint32_t i = 0; i < slots; ++i) {
    for (std::size_t at = 0; at < slot; ++at) own.memory[i * slot + at] = byte_of(i, at, who);
  }
  meet(own, fd);
  auto const end = std::chrono::steady_clock::now() + patience;
  std::uint32_t posted = 0;
  while (own.arrived.size() < slots || own.sent.size() < slots) {
    if (std::chrono::steady_clock::now() > end) throw std::runtime_error("not done in time");
    if (posted < slots) {
      Write const write{own.peer, own.region.get(), posted * slot, own.target, (slots + posted) * slot,
                        slot,     posted,           posted};
      if (own.endpoint->post(write) == Endpoint::Posted::yes) ++posted;
    }
    own.poll();
  }
  for (std::uint32_t i = 0; i < slots; ++i) {
    for (std::size_t at = 0; at < slot; ++at) {
      if (own.memory[(slots + i) * slot + at] != byte_of(i, at, 1 - who)) throw std::runtime_error("a wrong byte");
    }
  }
  // The other may need our progress for its last completions.
  shutdown(fd, SHUT_WR);
  char rest = 0;
  while (recv(fd, &rest, 1, MSG_DONTWAIT) < 0) {
    if (std::chrono::steady_clock::now() > end) throw std::runtime_error("the other was not done in time");
    own.poll();
  }
}

class FabricProcesses : public testing::TestWithParam<Wish> {};

TEST_P(FabricProcesses, EveryByteArrives) {
  OtherProcess other([way = GetParam()](int fd) { write_and_check(way, fd, 1); });
  write_and_check(GetParam(), other.fd(), 0);
  EXPECT_EQ(other.end(0), 0);
}

// How writing to a peer that is gone ends.
struct Ending {
  bool busy_for_long = false;
  bool failed_event = false;
  bool lost = false;
  std::string text;
};

Ending write_until_something_is_wrong(End& own) {
  Ending ending;
  auto const end = std::chrono::steady_clock::now() + std::chrono::seconds{2};
  while (!ending.failed_event && !ending.lost) {
    bool busy = true;
    try {
      Write const write{own.peer, own.region.get(), 0, own.target, 0, own.memory.size(), 1, 2};
      busy = own.endpoint->post(write) == Endpoint::Posted::busy;
    } catch (Error const& error) {  // PeerLost, or a SystemError where the provider's error says less
      ending.lost = true;
      ending.text = error.what();
    }
    for (Event const& event : own.poll()) {
      if (event.kind != Event::Kind::failed) continue;
      ending.failed_event = true;
      ending.text = own.endpoint->reason(event.peer);
    }
    if (std::chrono::steady_clock::now() < end) continue;
    ending.busy_for_long = busy;
    break;
  }
  return ending;
}

void expect_a_proper_end(Ending const& ending) {
  // Nothing else may happen: no crash, no hang, and no write that seems to go on for ever.
  EXPECT_TRUE(ending.busy_for_long || ending.failed_event || ending.lost);
  EXPECT_TRUE(ending.busy_for_long || !ending.text.empty());
  testing::Test::RecordProperty("ending", ending.busy_for_long ? "busy" : ending.text);
}

// Killed while it takes writes, while it does not poll, and before it was ever written to.
enum class Moment { while_it_polls, while_it_sleeps, before };

void kill_the_peer(Wish const& way, Moment moment, std::size_t bytes) {
  OtherProcess other([&](int fd) {
    End own(EndpointOptions{way}, bytes);
    meet(own, fd);
    while (moment == Moment::while_it_polls) own.poll();
    pause();
  });
  End own(EndpointOptions{way}, bytes);
  meet(own, other.fd());
  if (moment == Moment::while_it_polls) {
    ASSERT_TRUE(poll_until({&own}, [&] {
      (void)own.endpoint->post({own.peer, own.region.get(), 0, own.target, 0, bytes, 1, 2});
      return own.sent[2] > 20;
    }));
  }
  if (moment == Moment::while_it_sleeps) {
    for (int i = 0; i < 1000; ++i) {
      (void)own.endpoint->post({own.peer, own.region.get(), 0, own.target, 0, bytes, 1, 2});
      own.poll();
    }
  }
  EXPECT_TRUE(WIFSIGNALED(other.end(SIGKILL)));
  expect_a_proper_end(write_until_something_is_wrong(own));
}

TEST_P(FabricProcesses, APeerIsKilledWhileItPolls) {
  kill_the_peer(GetParam(), Moment::while_it_polls, 100000);
}

TEST_P(FabricProcesses, APeerIsKilledWhileItPollsForSmallWrites) {
  kill_the_peer(GetParam(), Moment::while_it_polls, 100);
}

TEST_P(FabricProcesses, APeerIsKilledWhileItSleeps) {
  kill_the_peer(GetParam(), Moment::while_it_sleeps, 1000000);
}

TEST_P(FabricProcesses, APeerIsKilledBeforeTheFirstWrite) {
  kill_the_peer(GetParam(), Moment::before, 1000);
}

// Others are served as before.
TEST_P(FabricProcesses, TheDeathOfOneIsNotThatOfAnother) {
  OtherProcess other([&](int fd) {
    End own(EndpointOptions{GetParam()}, 1000);
    meet(own, fd);
    while (true) own.poll();
  });
  Pair pair(GetParam(), 1000);
  Peer const living = pair.a.peer;
  PeerRegion const target = pair.a.target;
  meet(pair.a, other.fd());
  ASSERT_TRUE(poll_until(pair.both, [&] {
    (void)pair.a.endpoint->post({pair.a.peer, pair.a.region.get(), 0, pair.a.target, 0, 1000, 1, 2});
    return pair.a.sent[2] > 3;
  }));
  other.end(SIGKILL);
  Ending const ending = write_until_something_is_wrong(pair.a);
  expect_a_proper_end(ending);
  if (GetParam().provider == "tcp" && (ending.failed_event || ending.lost)) {
    Write const write{.to = pair.a.peer, .into = pair.a.target};
    EXPECT_THROW((void)pair.a.endpoint->post(write), PeerLost);
  }
  for (std::uint64_t i = 10; i < 20; ++i) {
    post(pair.a, {living, pair.a.region.get(), 0, target, 0, 1000, 5, i}, pair.both);
    ASSERT_TRUE(poll_until(pair.both, [&] { return pair.a.sent[i] == 1; }));
  }
  EXPECT_TRUE(poll_until(pair.both, [&] { return pair.b.arrived[5] == 10; }));
}

INSTANTIATE_TEST_SUITE_P(Ways, FabricProcesses, testing::ValuesIn(ways_that_survive()), name_of_way);

}  // namespace
}  // namespace switchyard::test
