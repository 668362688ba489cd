// What the tests of stores, sockets and nodes share.
#pragma once

#include <chrono>
#include <functional>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

namespace switchyard::test {

// A deadline for what is not expected to take any time, even on a machine with much else to do.
inline constexpr std::chrono::milliseconds plenty{30000};

inline void run_threads(int count, std::function<void(int)> const& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < count; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
}

inline std::span<std::byte const> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

}  // namespace switchyard::test
