// What every store does, in one process and over TCP.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "bootstrap/in_process_store.hpp"
#include "bootstrap/tcp_store/client.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "support/meeting.hpp"
#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using test::bytes_of;
using test::plenty;

std::string text_of(std::vector<std::byte> const& bytes) {
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

// A store, and a view of it for one more rank.
class Stores {
 public:
  explicit Stores(bool tcp) {
    if (tcp)
      server_ =
          std::make_unique<TcpStoreServer>(TcpStoreServerOptions{.listen = "127.0.0.1", .port = 0, .token = "t"});
    else
      shared_ = std::make_shared<InProcessStore>();
  }
  std::shared_ptr<Store> open() {
    if (shared_) return shared_;
    return std::make_shared<TcpStoreClient>(HostPort{"127.0.0.1", server_->port()}, "t", plenty);
  }

 private:
  std::unique_ptr<TcpStoreServer> server_;
  std::shared_ptr<Store> shared_;
};

class StoreTest : public testing::TestWithParam<bool> {
 protected:
  Stores stores_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(All, StoreTest, testing::Bool(),
                         [](auto const& param) { return param.param ? "Tcp" : "InProcess"; });

TEST_P(StoreTest, GivesBackWhatWasSet) {
  auto const store = stores_.open();
  auto const other = stores_.open();
  store->set("key", bytes_of("value"));
  store->set("empty", {});
  EXPECT_EQ(text_of(other->get("key", Deadline(plenty))), "value");
  EXPECT_EQ(text_of(store->get("key", Deadline(plenty))), "value");
  EXPECT_TRUE(other->get("empty", Deadline(plenty)).empty());
}

TEST_P(StoreTest, GetWaitsForSet) {
  auto const reader = stores_.open();
  auto const writer = stores_.open();
  std::atomic<bool> set = false;
  std::thread thread([&] {
    std::this_thread::sleep_for(milliseconds{100});
    set = true;
    writer->set("late", bytes_of("value"));
  });
  EXPECT_EQ(text_of(reader->get("late", Deadline(plenty))), "value");
  EXPECT_TRUE(set);
  thread.join();
}

TEST_P(StoreTest, TimeoutNamesTheKeyAndTheStoreStaysUsable) {
  auto const store = stores_.open();
  try {
    store->get("nobody sets this", Deadline(milliseconds{50}));
    FAIL();
  } catch (Timeout const& error) {
    EXPECT_NE(std::string(error.what()).find("nobody sets this"), std::string::npos);
  }
  store->set("key", bytes_of("value"));
  EXPECT_EQ(text_of(store->get("key", Deadline(plenty))), "value");
}

TEST_P(StoreTest, WaitingInSlicesLosesNothing) {
  auto const reader = stores_.open();
  auto const writer = stores_.open();
  EXPECT_THROW(reader->get("a", Deadline(milliseconds{5})), Timeout);
  EXPECT_THROW(reader->get("a", Deadline(milliseconds{5})), Timeout);
  EXPECT_THROW(reader->get("b", Deadline(milliseconds{5})), Timeout);
  writer->set("a", bytes_of("1"));
  writer->set("b", bytes_of("2"));
  EXPECT_EQ(text_of(reader->get("a", Deadline(plenty))), "1");
  EXPECT_EQ(text_of(reader->get("b", Deadline(plenty))), "2");
}

TEST_P(StoreTest, AKeyIsSetOnce) {
  auto const store = stores_.open();
  store->set("key", bytes_of("first"));
  EXPECT_THROW(store->set("key", bytes_of("second")), InvalidArgument);
  EXPECT_EQ(text_of(store->get("key", Deadline(plenty))), "first");
}

TEST_P(StoreTest, LimitsOfKeysAndValues) {
  auto const store = stores_.open();
  std::vector<std::byte> value(max_value_bytes, std::byte{42});
  std::string const key(max_key_bytes, 'k');
  store->set(key, value);
  EXPECT_EQ(store->get(key, Deadline(plenty)), value);
  value.emplace_back();
  EXPECT_THROW(store->set("too long a value", value), InvalidArgument);
  EXPECT_THROW(store->set(key + "k", {}), InvalidArgument);
  store->set("still usable", {});
}

TEST_P(StoreTest, ManyReadersOfOneKey) {
  std::string const value(300000, 'v');
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i)
    threads.emplace_back([&] {
      if (text_of(stores_.open()->get("shared", Deadline(plenty))) == value) ++right;
    });
  stores_.open()->set("shared", bytes_of(value));
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 16);
}

TEST(TcpStore, ClientWaitsForALateServer) {
  auto first =
      std::make_unique<TcpStoreServer>(TcpStoreServerOptions{.listen = "127.0.0.1", .port = 0, .token = "t"});
  std::uint16_t const port = first->port();
  first.reset();
  std::thread late;
  std::unique_ptr<TcpStoreServer> server;
  late = std::thread([&] {
    std::this_thread::sleep_for(milliseconds{150});
    server =
        std::make_unique<TcpStoreServer>(TcpStoreServerOptions{.listen = "127.0.0.1", .port = port, .token = "t"});
  });
  TcpStoreClient client({"localhost", port}, "t", plenty);
  client.set("key", {});
  late.join();
}

TEST(TcpStore, TimeoutWhenNobodyServes) {
  std::uint16_t const port = TcpStoreServer({.listen = "127.0.0.1", .port = 0, .token = {}}).port();
  EXPECT_THROW(TcpStoreClient({"127.0.0.1", port}, "", milliseconds{100}), Timeout);
}

TEST(TcpStore, PortTaken) {
  TcpStoreServer const server({.listen = "127.0.0.1", .port = 0, .token = {}});
  EXPECT_THROW(TcpStoreServer({.listen = "127.0.0.1", .port = server.port(), .token = {}}), SystemError);
}

TEST(TcpStore, OffLoopbackNeedsAToken) {
  EXPECT_THROW(TcpStoreServer({.listen = "0.0.0.0", .port = 0, .token = {}}), InvalidArgument);
}

TEST(TcpStore, WhoWaitsWhenTheServerLeavesLosesAPeer) {
  auto server =
      std::make_unique<TcpStoreServer>(TcpStoreServerOptions{.listen = "127.0.0.1", .port = 0, .token = {}});
  TcpStoreClient client({"127.0.0.1", server->port()}, "", plenty);
  std::thread thread([&] {
    std::this_thread::sleep_for(milliseconds{100});
    server.reset();
  });
  EXPECT_THROW(client.get("key", Deadline(plenty)), PeerLost);
  thread.join();
  EXPECT_THROW(client.set("key", {}), PeerLost);
}

}  // namespace
}  // namespace switchyard
