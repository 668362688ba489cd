// Where a port's memory ends: slots that are out, send slots under way, letters that come early, and what is
// refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "conformance/scale_out/calls.hpp"

namespace switchyard::test {
namespace {

using scale_out::Port;
using scale_out::PortSizes;

NodeNames const pair{"a", "b"};

class PortBounds : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (auto const why = choose(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
};

void send_byte(Port& port, Port::Room const& room, std::byte byte) {
  room.memory[0] = byte;
  port.send(room, 1);
}

// A room says for itself when its chunk has left, and still does when its send slot is used again.
TEST_P(PortBounds, AChunkThatHasLeft) {
  PortSizes const sizes{.letter_bytes = 8, .slot_bytes = 64, .slots = 2, .send_slots = 1};
  std::atomic<bool> taken{false};
  run_ports(pair, sizes, [&](Port& port, Job& job) {
    port.begin(1);
    if (job.rank() == 0) {
      Port::Room const first = port.room_for(0).value();
      send_byte(port, first, std::byte{1});
      poll_until(
          port, [&] { return port.has_left(first); }, "the first chunk to leave");
      Port::Room const second = port.room_for(0).value();
      check_equal(second.from, first.from, "the only send slot");
      check(port.has_left(first), "the first chunk is under way again");
      send_byte(port, second, std::byte{2});
      check(port.has_left(first), "the first chunk is under way again");
      poll_until(
          port, [&] { return port.has_left(second) && taken; }, "the second chunk to leave");
      return;
    }
    int chunks = 0;
    poll_until(
        port,
        [&] {
          while (auto const chunk = port.next_chunk(0)) {
            port.give_back(*chunk);
            ++chunks;
          }
          return chunks == 2;
        },
        "both chunks");
    taken = true;
  });
}

// A neighbour that gives nothing back stops the sender at its slots, and each slot that it gives back, in whatever
// order, is room for one more.
TEST_P(PortBounds, SlotsAreAllThereIs) {
  PortSizes const sizes{.letter_bytes = 8, .slot_bytes = 64, .slots = 3, .send_slots = 5};
  std::atomic<int> given_back{0};
  std::atomic<bool> checked{false};
  run_ports(pair, sizes, [&](Port& port, Job& job) {
    port.begin(1);
    if (job.rank() == 0) {
      for (int sent = 0; sent < 3; ++sent) send_byte(port, port.room_for(0).value(), std::byte(sent));
      poll_until(
          port, [&] { return port.all_sent(); }, "chunks to leave");
      check(!port.room_for(0), "room beyond the slots");
      checked = true;
      poll_until(
          port, [&] { return given_back == 1; }, "the neighbour");
      std::optional<Port::Room> room;
      poll_until(
          port, [&] { return (room = port.room_for(0)).has_value(); }, "a credit");
      check_equal(room->slot, 1, "the slot that was given back");
      check(!port.room_for(0), "room beyond the slots");
      send_byte(port, *room, std::byte{7});
      poll_until(
          port, [&] { return given_back == 4; }, "the neighbour");
      return;
    }
    std::vector<Port::Chunk> chunks;
    auto const take = [&] {
      if (auto const chunk = port.next_chunk(0)) chunks.push_back(*chunk);
      return chunks.size() == 3;
    };
    poll_until(port, take, "three chunks");
    std::ranges::sort(chunks, {}, &Port::Chunk::slot);
    poll_until(
        port, [&] { return checked.load(); }, "the sender");
    port.give_back(chunks[1]);
    chunks.erase(chunks.begin() + 1);
    ++given_back;
    poll_until(port, take, "one more chunk");
    check_equal(static_cast<int>(chunks.back().memory[0]), 7, "its byte");
    for (auto const& chunk : chunks) port.give_back(chunk);
    given_back += 3;
  });
}

// A rank that is a whole call ahead, with every slot filled, disturbs nothing of this one's call.
TEST_P(PortBounds, ARankFarAhead) {
  PortSizes const sizes{.letter_bytes = 8, .slot_bytes = 64, .slots = 4, .send_slots = 4};
  std::atomic<bool> ahead{false};
  run_ports(pair, sizes, [&](Port& port, Job& job) {
    exchange_letters(port, 1);
    if (job.rank() == 0) {
      port.begin(2);
      auto const letter = port.letter_to(0);
      letter->front() = std::byte{22};
      port.send_letter(0, 1);
      for (int i = 0; i < 4; ++i) send_byte(port, port.room_for(0).value(), std::byte(20 + i));
      check(!port.room_for(0), "room beyond the slots");
      ahead = true;
      poll_until(
          port, [&] { return port.letter_from(0).has_value() && port.all_sent(); }, "the end of the call");
      return;
    }
    for (int polls = 0; polls < 1000 || !ahead; ++polls) {
      port.poll();
      check(!port.next_chunk(0), "a chunk of a later call");
    }
    check(port.letter_from(0).has_value() && port.letter_from(0)->front() != std::byte{22}, "the letter of call 1");
    exchange_letters(port, 2);
    check(port.letter_from(0)->front() == std::byte{22}, "the letter of call 2");
    std::vector<int> seen;
    poll_until(
        port,
        [&] {
          auto const chunk = port.next_chunk(0);
          if (chunk) seen.push_back(static_cast<int>(chunk->memory[0]));
          if (chunk) port.give_back(*chunk);
          return seen.size() == 4;
        },
        "the chunks of call 2");
    std::ranges::sort(seen);
    check(seen == std::vector{20, 21, 22, 23}, "chunks of call 2");
  });
}

// A call that all ranks refuse ends while chunks of it are under way, and the next one does not wait for them.
TEST_P(PortBounds, OnlyItsOwnChunksKeepACall) {
  PortSizes const sizes{.letter_bytes = 8, .slot_bytes = 8, .slots = 2, .send_slots = 2};
  run_ports(pair, sizes, [&](Port& port, Job& job) {
    if (job.rank() == 0) {
      port.begin(1);
      send_byte(port, port.room_for(0).value(), std::byte{1});
      check(!port.all_sent() && port.unsent_to() == 0, "the chunk has left before anybody could see that");
      check(!port.letters_unsent_to(), "no letter was sent");
      port.begin(2);
      check(port.all_sent(), "call 2 waits for a chunk of call 1");
      send_byte(port, port.room_for(0).value(), std::byte{2});
      check(!port.all_sent(), "the chunk of call 2 is under way");
      poll_until(
          port, [&] { return port.all_sent(); }, "the chunk of call 2 to leave");
      return;
    }
    port.begin(2);
    std::optional<Port::Chunk> chunk;
    poll_until(
        port, [&] { return (chunk = port.next_chunk(0)).has_value(); }, "the chunk of call 2");
    check_equal(static_cast<int>(chunk->memory[0]), 2, "its byte");
    port.give_back(*chunk);
  });
}

// Chunks that nobody took are given back when the next call begins, also those of a call that was left out.
TEST_P(PortBounds, ChunksThatNobodyTakes) {
  PortSizes const sizes{.letter_bytes = 0, .slot_bytes = 8, .slots = 2, .send_slots = 2};
  std::atomic<bool> sent{false};
  run_ports(pair, sizes, [&](Port& port, Job& job) {
    if (job.rank() == 0) {
      port.begin(1);
      send_byte(port, port.room_for(0).value(), std::byte{1});
      port.begin(2);
      send_byte(port, port.room_for(0).value(), std::byte{2});
      poll_until(
          port, [&] { return port.all_sent(); }, "chunks to leave");
      sent = true;
      port.begin(4);
      std::array<std::optional<Port::Room>, 2> rooms;
      for (auto& room : rooms)
        poll_until(
            port, [&] { return (room = port.room_for(0)).has_value(); }, "a credit");
      for (auto const& room : rooms) send_byte(port, *room, std::byte{4});
      poll_until(
          port, [&] { return port.all_sent(); }, "chunks to leave");
      return;
    }
    port.begin(1);
    for (int polls = 0; polls < 1000 || !sent; ++polls) port.poll();
    port.begin(4);
    for (int seen = 0; seen < 2; ++seen) {
      std::optional<Port::Chunk> chunk;
      poll_until(
          port, [&] { return (chunk = port.next_chunk(0)).has_value(); }, "a chunk of call 4");
      check_equal(static_cast<int>(chunk->memory[0]), 4, "its byte");
      port.give_back(*chunk);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, PortBounds,
                         testing::Values(Way{"loopback", 0}, Way{"loopback", 7}, Way{"loopback", 10},
                                         Way{"libfabric", 0}));

TEST(PortRefusals, JobsOfOneNode) {
  run_jobs({"a", "a"}, [](std::shared_ptr<Job> const& job) {
    auto const error = expect_throw<Unsupported>("one node", [&] { Port const port(job, {}); });
    check_names(error, {"several nodes"});
    job->barrier();  // which still works
  });
  EXPECT_THROW(Port(nullptr, {}), InvalidArgument);
}

// Whichever rank is wrong, all say the same, and the job goes on.
TEST(PortRefusals, SizesThatDiffer) {
  ASSERT_EQ(choose({}), "");
  run_jobs({"a", "a", "b", "c"}, [](std::shared_ptr<Job> const& job) {
    PortSizes const good{.letter_bytes = 8, .slot_bytes = 64, .slots = 3, .send_slots = 5};
    struct Wrong {
      PortSizes sizes;
      std::string_view name;
    };
    std::vector<Wrong> wrong(4, {good, ""});
    wrong[0] = {{9, 64, 3, 5}, "PortSizes::letter_bytes: expected 8 on all ranks, as on rank 0, seen 9 on rank 2"};
    wrong[1] = {{8, 65, 3, 5}, "PortSizes::slot_bytes: expected 64"};
    wrong[2] = {{8, 64, 4, 5}, "PortSizes::slots: expected 3"};
    wrong[3] = {{8, 64, 3, 6}, "PortSizes::send_slots: expected 5"};
    for (Wrong const& one : wrong) {
      auto const error = expect_throw<InvalidArgument>(
          one.name, [&] { Port const port(job, job->rank() == 2 ? one.sizes : good); });
      check_names(error, {one.name});
    }
    for (PortSizes const bad : {PortSizes{8, 64, -1, 5}, PortSizes{8, 64, 1025, 5}, PortSizes{8, 64, 3, -1},
                                PortSizes{~std::size_t{0}, 64, 3, 5}, PortSizes{8, ~std::size_t{0}, 3, 5}}) {
      auto const error = expect_throw<InvalidArgument>(
          "one rank's bad sizes", [&] { Port const port(job, job->rank() == 3 ? bad : good); });
      check_equal(error.rank(), 3, "rank of the error");
    }
    Port port(job, good);
    exchange_letters(port, 1);
  });
}

TEST(PortRefusals, MemoryThatThereIsNot) {
  ASSERT_EQ(choose({}), "");
  run_jobs({"a", "b"}, [](std::shared_ptr<Job> const& job) {
    PortSizes const sizes{.letter_bytes = std::size_t{1} << 40U,
                          .slot_bytes = std::size_t{1} << 40U,
                          .slots = 1024,
                          .send_slots = 1024};
    auto const error = expect_throw<OutOfMemory>("too much", [&] { Port const port(job, sizes); });
    check_names(error, {"between nodes"});
  });
}

TEST(PortRefusals, WhatAnEngineMayNotDo) {
  ASSERT_EQ(choose({}), "");
  PortSizes const sizes{.letter_bytes = 8, .slot_bytes = 64, .slots = 2, .send_slots = 2};
  run_ports(pair, sizes, [](Port& port, Job& job) {
    auto const refused = [](std::string_view what, auto const& action) {
      expect_throw<InvalidArgument>(what, action);
    };
    refused("a letter without a call", [&] { static_cast<void>(port.letter_to(0)); });
    refused("a neighbour that there is not", [&] { static_cast<void>(port.room_for(1)); });
    refused("no neighbour", [&] { static_cast<void>(port.letter_from(-1)); });
    refused("epoch 0", [&] { port.begin(0); });
    refused("a far epoch", [&] { port.begin(100); });
    check_equal(port.number_of(1 - job.rank()), 0, "number of the neighbour");
    check_equal(port.number_of(job.rank()), -1, "number of no neighbour");
    check_equal(port.neighbours()[0].text(), job.rank() == 0 ? "rank 1 (node 1)" : "rank 0 (node 0)", "name");
    port.begin(1);
    refused("a letter that is too long", [&] { port.send_letter(0, 9); });
    refused("a slot that is not taken", [&] { port.give_back({.neighbour = 0, .slot = 0}); });
    refused("a slot that there is not", [&] { port.give_back({.neighbour = 0, .slot = 2}); });
    auto room = port.room_for(0).value();
    refused("a chunk that is too long", [&] { port.send(room, 65); });
    refused("another room", [&] { port.send({.neighbour = 0, .slot = 0, .from = -1}, 1); });
    port.send(room, 64);
    refused("a room twice", [&] { port.send(room, 64); });
    static_cast<void>(port.letter_to(0));
    port.send_letter(0, 8);
    refused("a second letter", [&] { port.send_letter(0, 8); });
    refused("the same epoch", [&] { port.begin(1); });
    std::optional<Port::Chunk> chunk;
    poll_until(
        port, [&] { return (chunk = port.next_chunk(0)).has_value(); }, "a chunk");
    port.give_back(*chunk);
    refused("a chunk given back twice", [&] { port.give_back(*chunk); });
    poll_until(
        port, [&] { return port.letter_from(0).has_value() && port.all_sent(); }, "the end of the call");
  });
}

TEST(PortRefusals, SettingsThatAreNone) {
  ASSERT_EQ(choose({"carrier pigeon", 0}), "");
  run_jobs(pair, [](std::shared_ptr<Job> const& job) {
    auto const error = expect_throw<InvalidArgument>("a transport", [&] { Port const port(job, {}); });
    check_names(error, {"SWITCHYARD_TRANSPORT", "auto|libfabric|loopback", "carrier pigeon"});
  });
}

}  // namespace
}  // namespace switchyard::test
