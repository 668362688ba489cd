// Reader of .npy files that hold recorded top-k ids: little-endian int32 or int64, C order, two dimensions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace switchyard::oracle {

struct IdTable {
  std::int64_t rows = 0;     // tokens
  std::int64_t columns = 0;  // top_k
  std::vector<std::int64_t> ids;
};

// Strict: throws InvalidArgument for anything but exactly such an array, with no byte missing or left over.
IdTable parse_npy(std::span<std::byte const> bytes);
// Reads the file first; at most 1 GiB.
IdTable read_npy(std::string const& path);

}  // namespace switchyard::oracle
