#include "bootstrap/in_process_store.hpp"

#include "base/check.hpp"
#include "bootstrap/tcp_store/frame.hpp"

namespace switchyard {

void InProcessStore::set(std::string_view key, std::span<std::byte const> value) {
  // The limits of the wire, so that what works among threads works among processes.
  require(key.size() <= max_key_bytes, "store key: expected at most {} bytes, seen {}", max_key_bytes, key.size());
  require(value.size() <= max_value_bytes, "store value: expected at most {} bytes, seen {}", max_value_bytes,
          value.size());
  std::lock_guard const lock(mutex_);
  bool const inserted = values_.try_emplace(std::string(key), value.begin(), value.end()).second;
  require(inserted, "store key '{}': is set already", key);
  changed_.notify_all();
}

std::vector<std::byte> InProcessStore::get(std::string_view key, Deadline const& deadline) {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (auto const found = values_.find(key); found != values_.end()) return found->second;
    if (deadline.expired()) throw Timeout(fmt::format("store key '{}' was not set in time", key));
    // One millisecond more than what remains, because remaining() rounds down and would spin at the end.
    changed_.wait_for(lock, deadline.remaining() + std::chrono::milliseconds{1});
  }
}

}  // namespace switchyard
