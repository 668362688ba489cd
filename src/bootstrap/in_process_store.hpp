// The store for ranks that are threads of one process.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>

#include "bootstrap/store.hpp"

namespace switchyard {

class InProcessStore final : public Store {
 public:
  void set(std::string_view key, std::span<std::byte const> value) override;
  std::vector<std::byte> get(std::string_view key, Deadline const& deadline) override;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::vector<std::byte>, std::less<>> values_;
};

}  // namespace switchyard
