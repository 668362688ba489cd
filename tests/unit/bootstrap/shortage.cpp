// Where file descriptors have run out, nobody waits for what will not come, and the log has it once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "bootstrap/tcp_store/client.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "support/descriptors.hpp"
#include "support/store_member.hpp"
#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using test::FewDescriptors;
using testing::AllOf;
using testing::HasSubstr;

// Nobody waits as long as this: ctest would end the test before.
constexpr milliseconds for_ever{3600000};

class Shortage : public testing::Test {
 protected:
  [[nodiscard]] std::unique_ptr<TcpStoreClient> dial() const {
    return std::make_unique<TcpStoreClient>(HostPort{"127.0.0.1", server_.port()}, "the token", for_ever);
  }
  [[nodiscard]] std::string refusal() const {
    try {
      static_cast<void>(dial());
    } catch (SystemError const& error) {
      return error.what();
    }
    return "a connection";
  }

  TcpStoreServer server_{
      {.listen = "127.0.0.1", .port = 0, .token = "the token", .handshake_timeout = milliseconds{300}}};
};

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST_F(Shortage, OfTheClientEndsItsWait) {
  FewDescriptors const none(0);
  EXPECT_THAT(refusal(), AllOf(HasSubstr("Too many open files"), HasSubstr("ulimit -n")));
}

TEST_F(Shortage, OfTheServerEndsItsClientsWaits) {
  testing::internal::CaptureStderr();
  {
    FewDescriptors const for_the_client(1);
    for (int i = 0; i < 3; ++i)
      EXPECT_THAT(refusal(), AllOf(HasSubstr("cannot serve this rank"), HasSubstr("ulimit -n")));
  }
  EXPECT_EQ(count(testing::internal::GetCapturedStderr(), "[switchyard warning"), 1U);
  dial()->set("served again", {});
}

std::ptrdiff_t open_descriptors() {
  std::filesystem::directory_iterator const all("/proc/self/fd");
  return std::distance(begin(all), end(all));
}

// A stranger gives its descriptor back when it has said nothing for a while.
TEST_F(Shortage, BecauseOfStrangersIsWaitedFor) {
  auto const before = open_descriptors();
  test::StoreMember const stranger(server_.address());
  while (open_descriptors() < before + 2) std::this_thread::yield();  // until it is accepted
  FewDescriptors const for_the_client(1);
  EXPECT_EQ(refusal(), "a connection");
}

}  // namespace
}  // namespace switchyard
