#include "oracle/sent.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "layout/logfmt.hpp"
#include "oracle/numbers.hpp"

namespace switchyard::oracle {

namespace {

constexpr std::size_t group = 128;

void append(std::vector<std::byte>& scales, auto const& scale) {
  auto const bytes = std::as_bytes(std::span(&scale, 1));
  scales.insert(scales.end(), bytes.begin(), bytes.end());
}

void cast_group(std::span<float const> part, SendCast cast, TokenBytes& out) {
  float amax = 1e-4F;
  for (float const value : part) amax = std::max(amax, std::fabs(value));
  auto const put_all = [&](auto const& scaled) {
    for (float const value : part) out.x.push_back(static_cast<std::byte>(encode(scaled(value), e4m3_format)));
  };
  if (cast == SendCast::fp8) {
    float const factor = 448.0F / amax;
    append(out.scales, amax / 448.0F);
    return put_all([=](float value) { return value * factor; });
  }
  int exponent = -126;
  while (std::ldexp(448.0, exponent) < static_cast<double>(amax)) ++exponent;
  if (cast == SendCast::fp8_ue8m0) append(out.scales, static_cast<std::uint8_t>(exponent + 127));
  if (cast == SendCast::fp8_pow2) append(out.scales, std::ldexp(1.0F, exponent));
  put_all([=, scale = std::ldexp(1.0F, -exponent)](float value) { return value * scale; });
}

}  // namespace

TokenBytes cast_token(std::span<std::byte const> x, DType dtype, SendCast cast) {
  TokenBytes out;
  std::vector<float> const values = decode_row(x, dtype);
  for (std::size_t begin = 0; begin < values.size(); begin += group)
    cast_group(std::span(values).subspan(begin, std::min(group, values.size() - begin)), cast, out);
  out.scales.resize((out.scales.size() + 3) / 4 * 4);
  return out;
}

TokenBytes sent_token(Terms const& terms, JobData const& data, TokenKey const& key) {
  TokenBytes passed = data.token(key);
  return terms.cast == SendCast::none ? passed : cast_token(passed.x, terms.dtype, terms.cast);
}

void code_and_decode(std::span<float> row) {
  std::array<std::uint8_t, logfmt_tile_bytes> codes{};
  for (std::size_t begin = 0; begin < row.size(); begin += logfmt_tile) {
    int const count = static_cast<int>(std::min<std::size_t>(logfmt_tile, row.size() - begin));
    LogfmtScale const scale = logfmt_encode_tile(row.data() + begin, count, codes.data());
    logfmt_decode_tile(scale, codes.data(), row.data() + begin, count);
  }
}

std::vector<float> coding_misses(std::span<float const> row) {
  std::vector<float> misses;
  for (std::size_t begin = 0; begin < row.size(); begin += group) {
    auto const part = row.subspan(begin, std::min(group, row.size() - begin));
    double greatest = 0;
    double least = std::numeric_limits<double>::infinity();
    for (float const value : part) {
      greatest = std::max(greatest, std::fabs(static_cast<double>(value)));
      least = std::min(least, std::fabs(static_cast<double>(value)));
    }
    double const step = std::log2(greatest / least) / 510;
    auto const share = static_cast<float>((std::exp2(step) - 1) / 2 * 1.01 + 0x1p-14);
    for (float const value : part) misses.push_back(std::fabs(value) * share);
  }
  return misses;
}

}  // namespace switchyard::oracle
