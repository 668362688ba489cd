// Descriptors that travel over a Unix socket.
#include "node/fd_message.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>

#include "support/descriptors.hpp"

namespace switchyard {
namespace {

struct Pair {
  Pair() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    one = UniqueFd(ends[0]);
    other = UniqueFd(ends[1]);
  }
  UniqueFd one;
  UniqueFd other;
};

TEST(FdMessage, BringsADescriptor) {
  Pair const pair;
  std::array<std::byte, 3> bytes{std::byte{7}, std::byte{8}, std::byte{9}};
  ASSERT_EQ(send_with_fd(pair.one.get(), bytes, pair.one.get()), 3);
  std::array<std::byte, 3> received{};
  UniqueFd fd;
  EXPECT_EQ(receive_with_fd(pair.other.get(), received, fd), 3);
  EXPECT_EQ(received, bytes);
  EXPECT_TRUE(fd);
}

TEST(FdMessage, SaysWhenThisProcessMayNotHaveIt) {
  Pair const pair;
  std::array<std::byte, 1> byte{};
  ASSERT_EQ(send_with_fd(pair.one.get(), byte, pair.one.get()), 1);
  UniqueFd fd;
  test::FewDescriptors const none(0);
  EXPECT_EQ(receive_with_fd(pair.other.get(), byte, fd), -1);
  EXPECT_EQ(errno, EMFILE);
  EXPECT_FALSE(fd);
}

}  // namespace
}  // namespace switchyard
