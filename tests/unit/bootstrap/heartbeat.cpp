// What is known of the machine at the other end of a connection.
#include "bootstrap/heartbeat.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <thread>

#include "base/unique_fd.hpp"

namespace switchyard {
namespace {

using namespace std::chrono_literals;

struct Connection {
  UniqueFd listener{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  UniqueFd near{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  UniqueFd far;

  Connection() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const plain = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(listener.get(), plain, length), 0);
    EXPECT_EQ(::listen(listener.get(), 1), 0);
    EXPECT_EQ(::getsockname(listener.get(), plain, &length), 0);
    EXPECT_EQ(::connect(near.get(), plain, length), 0);
    far = UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_TRUE(far);
  }
};

// Nobody reads or writes, as between calls.
TEST(Heartbeat, AnIdleConnectionIsAnsweredByTheOtherKernel) {
  Connection const connection;
  start_heartbeats(connection.near.get());
  std::this_thread::sleep_for(1200ms);
  auto const silence = silence_of(connection.near.get());
  auto const without = silence_of(connection.far.get());
  ASSERT_TRUE(silence && without);
  // No bound of time: one end is answered, the other asks nothing and hears nothing.
  EXPECT_LT(*silence, *without);
}

TEST(Heartbeat, OtherSocketsKnowNothing) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  UniqueFd const first(ends[0]);
  UniqueFd const second(ends[1]);
  EXPECT_FALSE(silence_of(first.get()));
  EXPECT_FALSE(silence_of(-1));
}

TEST(Heartbeat, TextsSayHowLong) {
  EXPECT_EQ(silence_text({}), "");
  EXPECT_EQ(silence_text(400ms), "; its machine answered 0.4 s ago");
  EXPECT_EQ(silence_text(12340ms), "; its machine has not answered for 12.3 s: is it off, or the link down?");
}

}  // namespace
}  // namespace switchyard
