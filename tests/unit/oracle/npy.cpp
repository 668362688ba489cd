// The reader of .npy files takes exactly what it says, and nothing malformed.
#include "oracle/npy.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "switchyard/error.hpp"

namespace switchyard::oracle {
namespace {

std::vector<std::byte> bytes_of(std::string const& text) {
  auto const bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

template <typename T>
std::string raw(std::vector<T> const& values) {
  return {reinterpret_cast<char const*>(values.data()), values.size() * sizeof(T)};
}

// A file of version 1.0.
std::string file(std::string const& header, std::string const& data) {
  std::string text("\x93NUMPY\x01\x00", 8);
  text += static_cast<char>(header.size() & 0xffU);
  text += static_cast<char>(header.size() >> 8U);
  return text + header + data;
}

std::string header(std::string const& descr, std::string const& order, std::string const& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }   \n";
}

std::string const good = file(header("<i4", "False", "(2, 3)"), raw<std::int32_t>({1, 2, 3, -1, 5, 6}));

TEST(Npy, ReadsInt32) {
  auto const table = parse_npy(bytes_of(good));
  EXPECT_EQ(table.rows, 2);
  EXPECT_EQ(table.columns, 3);
  EXPECT_EQ(table.ids, (std::vector<std::int64_t>{1, 2, 3, -1, 5, 6}));
}

TEST(Npy, ReadsInt64) {
  auto const text = file(header("<i8", "False", "(1, 2)"), raw<std::int64_t>({-1, std::int64_t{1} << 40}));
  EXPECT_EQ(parse_npy(bytes_of(text)).ids, (std::vector<std::int64_t>{-1, std::int64_t{1} << 40}));
}

TEST(Npy, ReadsVersion2) {
  std::string const head = header("<i8", "False", "(1, 1)");
  std::string text("\x93NUMPY\x02\x00", 8);
  text += static_cast<char>(head.size());
  text += std::string(3, '\0') + head + raw<std::int64_t>({7});
  EXPECT_EQ(parse_npy(bytes_of(text)).ids, std::vector<std::int64_t>{7});
}

TEST(Npy, RefusesEveryTruncation) {
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_THROW(parse_npy(bytes_of(good.substr(0, length))), InvalidArgument) << length;
  }
}

TEST(Npy, RefusesBytesLeftOver) {
  EXPECT_THROW(parse_npy(bytes_of(good + "x")), InvalidArgument);
}

TEST(Npy, RefusesOtherArrays) {
  std::string const data = raw<std::int64_t>({1, 2});
  for (auto const& head :
       {header("<f8", "False", "(1, 2)"),
        header(">i8", "False", "(1, 2)"),
        header("<u8", "False", "(1, 2)"),
        header("<i8", "True", "(1, 2)"),
        header("<i8", "False", "(2,)"),
        header("<i8", "False", "()"),
        header("<i8", "False", "(1, 1, 2)"),
        header("<i8", "False", "(0, 2)"),
        header("<i8", "False", "(-1, -2)"),
        header("<i8", "False", "(2, 2)"),
        header("<i8", "False", "(4611686018427387905, 2)"),
        header("<i8", "False", "(99999999999999999999, 2)"),
        header("<i8", "False", "(1 2)"),
        std::string("{'descr': '<i8', 'shape': (1, 2)}"),
        std::string("{'descr': '<i8"),
        std::string("{"),
        std::string(),
        std::string("{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2)} x"),
        std::string("{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), 'shape': (1, 2)}"),
        std::string("{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), 'more': '1'}")}) {
    EXPECT_THROW(parse_npy(bytes_of(file(head, data))), InvalidArgument) << head;
  }
}

TEST(Npy, RefusesOtherVersionsAndMagic) {
  std::string other = good;
  other[6] = 4;
  EXPECT_THROW(parse_npy(bytes_of(other)), InvalidArgument);
  other = good;
  other[1] = 'n';
  EXPECT_THROW(parse_npy(bytes_of(other)), InvalidArgument);
}

TEST(Npy, NamesTheFileThatIsMissing) {
  try {
    read_npy("/nonexistent/ids.npy");
    FAIL();
  } catch (InvalidArgument const& error) {
    EXPECT_NE(std::string(error.what()).find("/nonexistent/ids.npy"), std::string::npos);
  }
}

}  // namespace
}  // namespace switchyard::oracle
