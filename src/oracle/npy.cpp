#include "oracle/npy.hpp"

#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "base/check.hpp"

namespace switchyard::oracle {

namespace {

constexpr std::size_t max_file_bytes = std::size_t{1} << 30U;
constexpr std::size_t max_header_bytes = 65536;

// Walks over the Python dict literal of the header.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : rest_(text) {}

  void skip_spaces() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\n')) rest_.remove_prefix(1);
  }
  bool take(char c) {
    skip_spaces();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool take_word(std::string_view word) {
    skip_spaces();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  void expect(char c) { require(take(c), ".npy header: expected '{}' before '{}'", c, rest_.substr(0, 20)); }
  std::string_view quoted() {
    expect('\'');
    auto const end = rest_.find('\'');
    require(end != std::string_view::npos, ".npy header: a string does not end");
    auto const text = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return text;
  }
  std::int64_t number() {
    skip_spaces();
    std::int64_t value = 0;
    auto const [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    require(error == std::errc{} && value >= 0, ".npy header: expected a size, seen '{}'", rest_.substr(0, 20));
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    return value;
  }
  [[nodiscard]] bool at_end() {
    skip_spaces();
    return rest_.empty();
  }

 private:
  std::string_view rest_;
};

struct Header {
  std::string descr;
  bool has_order = false;
  std::vector<std::int64_t> shape;
};

std::vector<std::int64_t> parse_shape(Cursor& cursor) {
  std::vector<std::int64_t> shape;
  cursor.expect('(');
  while (!cursor.take(')')) {
    shape.push_back(cursor.number());
    require(shape.size() <= 2, ".npy header: expected two dimensions [tokens, top_k], seen more");
    if (!cursor.take(',')) {
      cursor.expect(')');
      break;
    }
  }
  require(shape.size() == 2, ".npy header: expected two dimensions [tokens, top_k], seen {}", shape.size());
  return shape;
}

void parse_entry(Cursor& cursor, Header& header) {
  std::string_view const key = cursor.quoted();
  cursor.expect(':');
  if (key == "descr" && header.descr.empty()) {
    header.descr = cursor.quoted();
  } else if (key == "fortran_order" && !header.has_order) {
    require(cursor.take_word("False"), ".npy header: expected C order ('fortran_order': False)");
    header.has_order = true;
  } else if (key == "shape" && header.shape.empty()) {
    header.shape = parse_shape(cursor);
  } else {
    throw InvalidArgument(fmt::format(".npy header: unexpected or repeated key '{}'", key));
  }
}

Header parse_header(std::string_view text) {
  Cursor cursor(text);
  Header header;
  cursor.expect('{');
  while (!cursor.take('}')) {
    parse_entry(cursor, header);
    if (!cursor.take(',')) {
      cursor.expect('}');
      break;
    }
  }
  require(cursor.at_end(), ".npy header: text after the closing brace");
  require(!header.descr.empty() && header.has_order && !header.shape.empty(),
          ".npy header: expected descr, fortran_order and shape");
  require(header.descr == "<i4" || header.descr == "<i8",
          ".npy: expected little-endian int32 or int64 ('<i4', '<i8'), seen '{}'", header.descr);
  return header;
}

std::uint32_t little_endian(std::span<std::byte const> bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) value |= std::to_integer<std::uint32_t>(bytes[i]) << (8 * i);
  return value;
}

// The header's text and the data after it.
struct Parts {
  std::string_view header;
  std::span<std::byte const> data;
};

Parts split(std::span<std::byte const> bytes) {
  constexpr std::string_view magic = "\x93NUMPY";
  require(bytes.size() >= 12 && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0,
          ".npy: the file does not start with the magic of a .npy file");
  auto const major = std::to_integer<int>(bytes[6]);
  require(major >= 1 && major <= 3 && bytes[7] == std::byte{0}, ".npy: version {}.{} is not known", major,
          std::to_integer<int>(bytes[7]));
  std::size_t const length_bytes = major == 1 ? 2 : 4;
  std::size_t const start = 8 + length_bytes;
  std::size_t const length = little_endian(bytes.subspan(8, length_bytes));
  require(length <= max_header_bytes && length <= bytes.size() - start,
          ".npy: the header claims {} bytes, the file has {}", length, bytes.size() - start);
  auto const header = bytes.subspan(start, length);
  return {{reinterpret_cast<char const*>(header.data()), length}, bytes.subspan(start + length)};
}

template <typename T>
void copy_ids(std::span<std::byte const> data, std::vector<std::int64_t>& ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    T value{};
    std::memcpy(&value, data.data() + i * sizeof(T), sizeof(T));
    ids[i] = value;
  }
}

}  // namespace

IdTable parse_npy(std::span<std::byte const> bytes) {
  auto const [text, data] = split(bytes);
  Header const header = parse_header(text);
  std::int64_t const rows = header.shape[0];
  std::int64_t const columns = header.shape[1];
  std::size_t const width = header.descr == "<i4" ? 4 : 8;
  std::size_t const count = data.size() / width;
  require(rows > 0 && columns > 0, ".npy: the array [{}, {}] is empty", rows, columns);
  // Division first: rows * columns may not fit.
  require(data.size() % width == 0 && count % static_cast<std::size_t>(columns) == 0 &&
              count / static_cast<std::size_t>(columns) == static_cast<std::size_t>(rows),
          ".npy: [{}, {}] of {} bytes each expected, {} bytes of data seen", rows, columns, width, data.size());
  IdTable table{.rows = rows, .columns = columns, .ids = std::vector<std::int64_t>(count)};
  if (width == 4) {
    copy_ids<std::int32_t>(data, table.ids);
  } else {
    copy_ids<std::int64_t>(data, table.ids);
  }
  return table;
}

IdTable read_npy(std::string const& path) {
  std::error_code error;
  auto const size = std::filesystem::file_size(path, error);
  require(!error, "{}: {}", path, error.message());
  require(size <= max_file_bytes, "{}: {} bytes, at most {} are read", path, size, max_file_bytes);
  std::vector<std::byte> bytes(size);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  require(file.good(), "{}: cannot be read", path);
  try {
    return parse_npy(bytes);
  } catch (InvalidArgument const& fault) {
    throw InvalidArgument(fmt::format("{}: {}", path, fault.what()));
  }
}

}  // namespace switchyard::oracle
