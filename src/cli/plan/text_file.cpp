#include "cli/plan/text_file.hpp"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "base/check.hpp"

namespace switchyard::cli {

std::string read_text(std::string const& path) {
  constexpr std::uintmax_t most = 1 << 20;
  std::error_code error;
  auto const size = std::filesystem::file_size(path, error);
  require(!error, "{}: {}", path, error.message());
  require(size <= most, "{}: expected at most {} bytes, seen {}", path, most, size);
  std::string text(size, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(size));
  require(file.good(), "{}: cannot be read", path);
  return text;
}

}  // namespace switchyard::cli
