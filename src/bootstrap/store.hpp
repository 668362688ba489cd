// Rendezvous: a small key-value store that all ranks of a job see.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.hpp"

namespace switchyard {

class Store {
 public:
  Store() = default;
  Store(Store const&) = delete;
  Store& operator=(Store const&) = delete;
  virtual ~Store() = default;

  // A key (at most 256 bytes) is set once; its value has at most 16 MiB.
  virtual void set(std::string_view key, std::span<std::byte const> value) = 0;
  // Waits until the key is set. Throws Timeout, naming the key.
  virtual std::vector<std::byte> get(std::string_view key, Deadline const& deadline) = 0;
  // The address of this machine by which others that use the store reach it, in digits.
  [[nodiscard]] virtual std::string own_address() const { return "127.0.0.1"; }
};

}  // namespace switchyard
