// sum_rows(), sum_rows_to_f32() and sum_nodes() against a scalar sum that rounds every product and every sum, bit
// by bit.
#include "engine/cpu/simd/targets.hpp"
// After simd_targets.hpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <optional>
#include <random>
#include <vector>

#include "engine/cpu/simd/kernels.hpp"
#include "hwy/highway.h"
#include "support/scale.hpp"
#include "switchyard/error.hpp"

namespace switchyard::cpu {
namespace {

constexpr float unbounded = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr std::array all_types = {DType::bf16, DType::f16, DType::f32};

// A binary format with `mantissa` bits after the point and exponents from `lowest` to `highest`.
struct Format {
  int mantissa;
  int lowest;
  int highest;
};
constexpr Format format_of(DType dtype) {
  if (dtype == DType::bf16) return {7, -126, 127};
  if (dtype == DType::f16) return {10, -14, 15};
  return {23, -126, 127};
}

// The value of a bit pattern, by the definition of the format.
float decode(std::uint32_t bits, DType dtype) {
  Format const format = format_of(dtype);
  int const width = static_cast<int>(size_of(dtype)) * 8;
  auto const mantissa = static_cast<double>(bits & ((1U << format.mantissa) - 1));
  auto const biased =
      static_cast<int>((bits >> format.mantissa) & static_cast<std::uint32_t>(2 * format.highest + 1));
  double magnitude = 0;
  if (biased == 2 * format.highest + 1) {
    magnitude = mantissa != 0 ? not_a_number : unbounded;
  } else if (biased == 0) {
    magnitude = std::ldexp(mantissa, format.lowest - format.mantissa);
  } else {
    magnitude = std::ldexp(mantissa + std::ldexp(1, format.mantissa), biased - format.highest - format.mantissa);
  }
  return static_cast<float>(std::copysign(magnitude, (bits >> (width - 1)) != 0 ? -1.0 : 1.0));
}

// The bit pattern of the nearest value, ties to even: nearbyint() in units of the last place. NaN is the
// positive quiet one.
std::uint32_t encode(float value, DType dtype) {
  Format const format = format_of(dtype);
  auto const bias = static_cast<std::uint32_t>(format.highest);
  std::uint32_t const infinite = (2 * bias + 1) << format.mantissa;
  if (std::isnan(value)) return infinite | 1U << (format.mantissa - 1);
  auto const sign = static_cast<std::uint32_t>(std::signbit(value)) << (size_of(dtype) * 8 - 1);
  double const magnitude = std::fabs(static_cast<double>(value));
  if (magnitude == 0) return sign;
  if (std::isinf(magnitude)) return sign | infinite;
  int const exponent = std::max(std::ilogb(magnitude), format.lowest);
  auto const units = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, format.mantissa - exponent)));
  // The hidden bit of `units` adds 1 to the exponent's field; rounding up to the next power adds one more.
  std::uint32_t const bits = (static_cast<std::uint32_t>(exponent - format.lowest) << format.mantissa) + units;
  return sign | std::min(bits, infinite);
}

std::uint32_t load(std::byte const* from, DType dtype) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, from, size_of(dtype));  // little endian
  return bits;
}

using Bytes = std::vector<std::byte>;

Bytes encode_row(std::vector<float> const& values, DType dtype) {
  Bytes row(values.size() * size_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint32_t const bits = encode(values[i], dtype);
    std::memcpy(row.data() + i * size_of(dtype), &bits, size_of(dtype));
  }
  return row;
}

struct Case {
  DType dtype = DType::bf16;
  std::size_t count = 0;
  std::vector<Bytes> rows;
  std::optional<std::vector<float>> weights;
  std::vector<Bytes> biases;  // at most two
};

// Volatile keeps a compiler that may fuse (-march=native) from doing so.
float rounded_sum(float a, float b) {
  float const volatile sum = a + b;
  return sum;
}
float rounded_product(float a, float b) {
  float const volatile product = a * b;
  return product;
}

float added_up(std::vector<float> const& terms) {
  float sum = terms.empty() ? 0.0F : terms[0];
  for (std::size_t i = 1; i < terms.size(); ++i) sum = rounded_sum(sum, terms[i]);
  return sum;
}

float exact_reference(Case const& wanted, std::size_t index) {
  std::size_t const at = index * size_of(wanted.dtype);
  std::vector<float> terms;
  for (Bytes const& bias : wanted.biases)
    terms.push_back(decode(load(bias.data() + at, wanted.dtype), wanted.dtype));
  for (std::size_t row = 0; row < wanted.rows.size(); ++row) {
    float const term = decode(load(wanted.rows[row].data() + at, wanted.dtype), wanted.dtype);
    terms.push_back(wanted.weights ? rounded_product((*wanted.weights)[row], term) : term);
  }
  return added_up(terms);
}

std::uint32_t reference(Case const& wanted, std::size_t index) {
  return encode(exact_reference(wanted, index), wanted.dtype);
}

// Rows in memory of their own, each shifted by a number of bytes drawn from `random`. No byte is behind a row's
// last: the address sanitizer sees who reads there.
class Shifted {
 public:
  // Multiples of `alignment`.
  Shifted(std::mt19937& random, std::size_t alignment) : random_(random), alignment_(alignment) {}

  void const* place(Bytes const& row) {
    std::size_t const shifted = shift();
    copies_.emplace_back(shifted).insert(copies_.back().end(), row.begin(), row.end());
    return copies_.back().data() + shifted;
  }
  std::vector<void const*> place(std::vector<Bytes> const& rows) {
    std::vector<void const*> pointers;
    for (Bytes const& row : rows) pointers.push_back(place(row));
    return pointers;
  }
  std::size_t shift() { return random_() % 64 / alignment_ * alignment_; }

 private:
  std::mt19937& random_;
  std::size_t alignment_;
  std::deque<Bytes> copies_;
};

// Memory for a result, with bytes around it that nobody may write.
class Guarded {
 public:
  Guarded(std::size_t bytes, std::size_t shift) : before_(guard + shift), out_(before_ + bytes + guard, mark) {}

  std::byte* data() { return out_.data() + before_; }
  [[nodiscard]] bool is_whole() const {
    auto const is_mark = [](std::byte value) { return value == mark; };
    return std::ranges::all_of(std::span(out_).first(before_), is_mark) &&
           std::ranges::all_of(std::span(out_).last(guard), is_mark);
  }

 private:
  static constexpr std::size_t guard = 64;
  static constexpr std::byte mark{0xa5};
  std::size_t before_;
  Bytes out_;
};

RowSum row_sum(Case const& wanted, std::vector<void const*> const& rows, std::vector<void const*> const& biases) {
  return {.rows = rows,
          .row_weights = wanted.weights ? wanted.weights->data() : nullptr,
          .bias0 = biases.empty() ? nullptr : biases[0],
          .bias1 = biases.size() < 2 ? nullptr : biases[1],
          .count = wanted.count,
          .dtype = wanted.dtype};
}

// Runs the kernel, and the one that does not round, with every array shifted by a number of bytes of its own.
void check(Case const& wanted, std::mt19937& random, bool align_elements = false) {
  std::size_t const width = size_of(wanted.dtype);
  Shifted shifted(random, align_elements ? width : 1);
  auto const rows = shifted.place(wanted.rows);
  auto const biases = shifted.place(wanted.biases);
  Guarded out(wanted.count * width, shifted.shift());
  Guarded exact(wanted.count * sizeof(float), shifted.shift() / sizeof(float) * sizeof(float));
  RowSum sum = row_sum(wanted, rows, biases);
  if (random() % 2 == 0) sum.next_rows = rows;  // changes nothing
  sum.out = out.data();
  sum_rows(sum);
  sum.out = exact.data();
  sum_rows_to_f32(sum);
  store_fence();
  for (std::size_t i = 0; i < wanted.count; ++i) {
    auto const where = [&] {
      return testing::Message() << name_of(wanted.dtype) << " element " << i << " of " << wanted.count << ", "
                                << rows.size() << " rows, " << biases.size() << " biases, weighted "
                                << wanted.weights.has_value();
    };
    float const expected = exact_reference(wanted, i);
    ASSERT_EQ(load(out.data() + i * width, wanted.dtype), encode(expected, wanted.dtype)) << where();
    ASSERT_EQ(load(exact.data() + i * sizeof(float), DType::f32), encode(expected, DType::f32)) << where();
  }
  ASSERT_TRUE(out.is_whole()) << wanted.count;
  ASSERT_TRUE(exact.is_whole()) << wanted.count;
}

// What nodes bring to a sum.
struct NodeCase {
  DType dtype = DType::bf16;
  std::size_t count = 0;
  std::vector<Bytes> parts{};
  std::size_t own = NodeSum::none;
  bool all_f32 = false;
  std::vector<Bytes> biases{};    // at most two
  std::optional<Case> own_sum{};  // rows and weights, in place of the part `own`

  [[nodiscard]] DType dtype_of(std::size_t part) const { return all_f32 || part == own ? DType::f32 : dtype; }
};

std::uint32_t reference(NodeCase const& wanted, std::size_t index) {
  std::vector<float> terms;
  auto const add = [&](Bytes const& from, DType dtype) {
    terms.push_back(decode(load(from.data() + index * size_of(dtype), dtype), dtype));
  };
  for (Bytes const& bias : wanted.biases) add(bias, wanted.dtype);
  for (std::size_t part = 0; part < wanted.parts.size(); ++part) {
    if (wanted.own_sum && part == wanted.own) {
      terms.push_back(exact_reference(*wanted.own_sum, index));
    } else {
      add(wanted.parts[part], wanted.dtype_of(part));
    }
  }
  return encode(added_up(terms), wanted.dtype);
}

void check_nodes(NodeCase const& wanted, std::mt19937& random) {
  std::size_t const width = size_of(wanted.dtype);
  Shifted shifted(random, sizeof(float));
  auto parts = shifted.place(wanted.parts);
  auto const biases = shifted.place(wanted.biases);
  std::vector<void const*> own_rows;
  if (wanted.own_sum) {
    own_rows = shifted.place(wanted.own_sum->rows);
    parts[wanted.own] = nullptr;
  }
  Guarded out(wanted.count * width, shifted.shift());
  sum_nodes({.parts = parts,
             .own = wanted.own,
             .all_f32 = wanted.all_f32,
             .own_rows = own_rows,
             .own_weights = wanted.own_sum && wanted.own_sum->weights ? wanted.own_sum->weights->data() : nullptr,
             .next_rows = own_rows,
             .bias0 = biases.empty() ? nullptr : biases[0],
             .bias1 = biases.size() < 2 ? nullptr : biases[1],
             .out = out.data(),
             .count = wanted.count,
             .dtype = wanted.dtype});
  for (std::size_t i = 0; i < wanted.count; ++i) {
    ASSERT_EQ(load(out.data() + i * width, wanted.dtype), reference(wanted, i))
        << name_of(wanted.dtype) << " element " << i << " of " << wanted.count << ", " << parts.size()
        << " parts, own " << wanted.own << " of " << own_rows.size() << " rows, all f32 " << wanted.all_f32 << ", "
        << biases.size() << " biases";
  }
  ASSERT_TRUE(out.is_whole()) << wanted.count;
}

Case random_case(DType dtype, std::size_t count, std::mt19937& random) {
  Case result{.dtype = dtype, .count = count, .rows = {}, .weights = {}, .biases = {}};
  std::normal_distribution<float> normal(0.0F, 3.0F);
  auto const row = [&] {
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return encode_row(values, dtype);
  };
  std::size_t const rows = random() % 10;
  for (std::size_t i = 0; i < rows; ++i) result.rows.push_back(row());
  std::size_t const biases = random() % 3;
  for (std::size_t i = 0; i < biases; ++i) result.biases.push_back(row());
  if (random() % 2 == 0) {
    result.weights.emplace(rows);
    for (float& weight : *result.weights) weight = normal(random);
  }
  return result;
}

// Three rows and weights of any bits.
Case any_bits(DType dtype, std::size_t count, std::mt19937& random) {
  Case any{.dtype = dtype, .count = count, .rows = {}, .weights = std::vector<float>(), .biases = {}};
  for (int row = 0; row < 3; ++row) {
    Bytes& bytes = any.rows.emplace_back(count * size_of(dtype));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    any.weights->push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  }
  return any;
}

// At least one row, and no bias: those are the sum's over nodes.
Case random_own(DType dtype, std::size_t count, std::mt19937& random) {
  Case own = random_case(dtype, count, random);
  while (own.rows.empty()) own = random_case(dtype, count, random);
  own.biases.clear();
  return own;
}

NodeCase random_node_case(DType dtype, std::size_t count, std::mt19937& random) {
  NodeCase result{.dtype = dtype, .count = count};
  std::normal_distribution<float> normal(0.0F, 3.0F);
  auto const row = [&](DType of) {
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return encode_row(values, of);
  };
  std::size_t const parts = random() % 6;
  if (parts > 0 && random() % 4 != 0) result.own = random() % parts;
  result.all_f32 = random() % 3 == 0;
  for (std::size_t i = 0; i < parts; ++i) result.parts.push_back(row(result.dtype_of(i)));
  std::size_t const biases = random() % 3;
  for (std::size_t i = 0; i < biases; ++i) result.biases.push_back(row(dtype));
  if (result.own != NodeSum::none && random() % 2 == 0) result.own_sum = random_own(dtype, count, random);
  return result;
}

class KernelsSum : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { select(GetParam()); }
  void TearDown() override { select(0); }

  // 0: the best.
  static void select(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

TEST_P(KernelsSum, RandomOfEverySize) {
  std::mt19937::result_type const seed = 20240602;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (DType const dtype : all_types) {
    for (std::size_t count = 0; count <= 300; count += static_cast<std::size_t>(test::by_scale(3, 1))) {
      ASSERT_NO_FATAL_FAILURE(check(random_case(dtype, count, random), random, random() % 4 != 0));
    }
    for (int i = 0; i < test::by_scale(2, 10); ++i)
      ASSERT_NO_FATAL_FAILURE(check(random_case(dtype, 7168, random), random, true));
  }
}

// One row of any bits: what comes out is what went in, but for NaN.
TEST_P(KernelsSum, Every16BitInput) {
  std::mt19937 random(3);
  for (DType const dtype : {DType::bf16, DType::f16}) {
    Case all{.dtype = dtype, .count = 65536, .rows = {Bytes(131072)}, .weights = {}, .biases = {}};
    for (std::uint32_t i = 0; i < 65536; ++i) std::memcpy(all.rows[0].data() + std::size_t{2} * i, &i, 2);
    ASSERT_NO_FATAL_FAILURE(check(all, random));
    std::vector<float> weights{1.0F / 3, unbounded};
    if (!test::small_scale())
      weights.insert(weights.end(), {1.0F, -1.0F, 1.0F / 1024, 1000.0F, 0.0F, not_a_number});
    for (float const weight : weights) {
      all.weights = {weight};
      ASSERT_NO_FATAL_FAILURE(check(all, random)) << weight;
    }
  }
}

// f32 bits of any kind, through sums in f32 and, by way of weights, roundings of any kind to 16 bits.
TEST_P(KernelsSum, AnyBits) {
  std::mt19937 random(4);
  for (DType const dtype : all_types) {
    for (int repeat = 0; repeat < test::by_scale(5, 20); ++repeat)
      ASSERT_NO_FATAL_FAILURE(check(any_bits(dtype, 4096, random), random)) << "repeat " << repeat;
  }
}

// Values half-way between two neighbours, and one f32 step beside: 1.0 + weight * (last place) / 2.
TEST_P(KernelsSum, TiesGoToEven) {
  std::mt19937 random(5);
  for (DType const dtype : {DType::bf16, DType::f16}) {
    Format const format = format_of(dtype);
    std::vector<float> bases;
    for (int exponent = format.lowest - format.mantissa; exponent <= format.highest; ++exponent) {
      float const place = std::ldexp(1.0F, std::max(exponent, format.lowest) - format.mantissa);
      for (int i = 0; i < 4; ++i) bases.push_back(std::ldexp(1.0F, exponent) + static_cast<float>(i) * place);
    }
    std::vector<float> const ones(bases.size(), 1.0F);
    for (float const base : bases) {
      float const place = std::ldexp(1.0F, std::max(std::ilogb(base), format.lowest) - format.mantissa);
      float const tie = base + place / 2;
      for (float const weight : {tie, std::nextafter(tie, 0.0F), std::nextafter(tie, unbounded), -tie}) {
        Case const one{.dtype = dtype,
                       .count = 40,
                       .rows = {encode_row({ones.begin(), ones.begin() + 40}, dtype)},
                       .weights = std::vector{weight},
                       .biases = {}};
        ASSERT_NO_FATAL_FAILURE(check(one, random)) << weight;
      }
    }
  }
}

// (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24 when fused, and 0 when the product is rounded first.
TEST_P(KernelsSum, ProductsAreRounded) {
  std::mt19937 random(6);
  float const a = 1.0F + 1.0F / 4096;
  float const square = rounded_product(a, a);
  Case fused{.dtype = DType::f32, .count = 100, .rows = {}, .weights = std::vector{-1.0F, a}, .biases = {}};
  fused.rows.push_back(encode_row(std::vector<float>(100, square), DType::f32));
  fused.rows.push_back(encode_row(std::vector<float>(100, a), DType::f32));
  ASSERT_EQ(reference(fused, 0), 0U);
  check(fused, random);
}

TEST_P(KernelsSum, SignOfZero) {
  std::mt19937 random(7);
  for (DType const dtype : all_types) {
    Bytes const negative = encode_row(std::vector<float>(70, -0.0F), dtype);
    Case zero{.dtype = dtype, .count = 70, .rows = {}, .weights = {}, .biases = {negative}};
    EXPECT_EQ(reference(zero, 0), encode(-0.0F, dtype));  // the bias alone
    check(zero, random);
    zero.biases = {};
    EXPECT_EQ(reference(zero, 0), 0U);
    check(zero, random);
    zero.rows = {negative, negative};
    EXPECT_EQ(reference(zero, 0), encode(-0.0F, dtype));
    check(zero, random);
  }
}

TEST_P(KernelsSum, OfNodesOfEverySize) {
  std::mt19937::result_type const seed = 20261130;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (DType const dtype : all_types) {
    for (std::size_t count = 0; count <= 300; count += static_cast<std::size_t>(test::by_scale(3, 1)))
      ASSERT_NO_FATAL_FAILURE(check_nodes(random_node_case(dtype, count, random), random));
    for (int i = 0; i < test::by_scale(2, 10); ++i)
      ASSERT_NO_FATAL_FAILURE(check_nodes(random_node_case(dtype, 7168, random), random));
  }
}

// Of any bits: infinities, NaN of either sign, numbers too small to be normal.
TEST_P(KernelsSum, OfNodesWithAnyBits) {
  std::mt19937 random(8);
  for (DType const dtype : all_types) {
    for (int repeat = 0; repeat < test::by_scale(6, 20); ++repeat) {
      NodeCase any{.dtype = dtype, .count = 4001};
      any.own = random() % 4;  // 3: none of them
      any.all_f32 = repeat % 3 == 0;
      for (std::size_t part = 0; part < 3; ++part) {
        Bytes& bytes = any.parts.emplace_back(any.count * size_of(any.dtype_of(part)));
        for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
      }
      if (any.own < 3 && repeat % 2 == 0) any.own_sum = any_bits(dtype, any.count, random);
      ASSERT_NO_FATAL_FAILURE(check_nodes(any, random)) << "repeat " << repeat;
    }
  }
}

// The own part is not rounded on its way in: 1 + 2^-20 is 1 in 16 bits, and the difference to 1 is lost then.
TEST_P(KernelsSum, OfNodesKeepsTheOwnPartWhole) {
  std::mt19937 random(9);
  for (DType const dtype : all_types) {
    NodeCase small{.dtype = dtype, .count = 70, .own = 1};
    small.parts.push_back(encode_row(std::vector<float>(70, -1.0F), dtype));
    small.parts.push_back(encode_row(std::vector<float>(70, 1.0F + 0x1p-20F), DType::f32));
    ASSERT_EQ(reference(small, 0), encode(0x1p-20F, dtype));
    check_nodes(small, random);
  }
}

TEST_P(KernelsSum, OfNodesSignOfZero) {
  std::mt19937 random(10);
  for (DType const dtype : all_types) {
    NodeCase zero{.dtype = dtype, .count = 70, .own = 0};
    EXPECT_EQ(reference(zero, 0), 0U);  // of no node at all
    check_nodes(zero, random);
    zero.parts.push_back(encode_row(std::vector<float>(70, -0.0F), DType::f32));
    EXPECT_EQ(reference(zero, 0), encode(-0.0F, dtype));
    check_nodes(zero, random);
  }
}

TEST(KernelsSumArguments, OtherTypesAreRefused) {
  EXPECT_THROW(sum_rows({.rows = {}, .dtype = DType::f8e4m3}), InvalidArgument);
  EXPECT_THROW(sum_rows_to_f32({.rows = {}, .dtype = DType::f8e4m3}), InvalidArgument);
  EXPECT_THROW(sum_nodes({.parts = {}, .dtype = DType::f8e4m3}), InvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Targets, KernelsSum, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](auto const& target) { return hwy::TargetName(target.param); });

}  // namespace
}  // namespace switchyard::cpu
