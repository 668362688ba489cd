// The receiving side of a faulty endpoint: counts the parts of each write until all are there.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "transport/faulty/protocol.hpp"

namespace switchyard::transport::faulty {

class Incoming {
 public:
  struct Result {
    std::optional<std::uint32_t> arrived{};  // a write whose last part this was: its immediate
    std::optional<int> finished_half{};      // of the window of this source: to be said to it
  };
  // Takes a part of a write. Throws SystemError for what no faulty endpoint sends.
  Result take(Part const& part);

 private:
  struct Assembly {
    std::uint64_t words = 0;
    std::uint32_t words_seen = 0;  // a bit for each
    int parts_seen = 0;
  };
  struct Source {
    std::array<Assembly, window> writes;
    std::array<int, 2> finished{};  // by half of the window, writes since it was last said
  };

  std::vector<std::unique_ptr<Source>> sources_ = std::vector<std::unique_ptr<Source>>(max_endpoints);
};

}  // namespace switchyard::transport::faulty
