#include "oracle/latency_sent.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>

#include "layout/logfmt.hpp"
#include "oracle/fp8_reference.hpp"

namespace switchyard::cli {

namespace {

constexpr std::size_t group = 128;

// The exponent of the smallest power of two that is not below amax / 448.
int exponent_of_scale(std::span<std::uint16_t const> part) {
  float amax = 1e-4F;
  for (auto const bits : part) amax = std::max(amax, std::fabs(bf16_to_float(bits)));
  int exponent = -126;
  while (std::ldexp(448.0, exponent) < static_cast<double>(amax)) ++exponent;
  return exponent;
}

void cast_to_powers(std::span<std::uint16_t const> source, SendCast cast, SentRow& row) {
  row.x.clear();
  row.scales.clear();
  for (std::size_t begin = 0; begin < source.size(); begin += group) {
    auto const part = source.subspan(begin, std::min(group, source.size() - begin));
    int const exponent = exponent_of_scale(part);
    for (auto const bits : part)
      row.x.push_back(std::byte{float_to_e4m3(std::ldexp(bf16_to_float(bits), -exponent))});
    float const scale = std::ldexp(1.0F, exponent);
    auto const byte = static_cast<std::byte>(exponent + 127);
    auto const bytes = cast == SendCast::fp8_ue8m0 ? std::span(&byte, 1) : std::as_bytes(std::span(&scale, 1));
    row.scales.insert(row.scales.end(), bytes.begin(), bytes.end());
  }
  row.scales.resize((row.scales.size() + 3) / 4 * 4);
}

}  // namespace

void fill_sent(Problem const& problem, SendCast cast, TokenKey const& key, SentRow& row) {
  if (cast == SendCast::fp8_pow2 || cast == SendCast::fp8_ue8m0) {
    std::vector<std::uint16_t> source(static_cast<std::size_t>(problem.hidden));
    fill_token(problem, key, std::as_writable_bytes(std::span(source)));
    return cast_to_powers(source, cast, row);
  }
  ReceivedToken token;
  fill_received(problem, key, token);
  row.x = token.row;
  auto const scales = std::as_bytes(std::span(token.scales));
  row.scales.assign(scales.begin(), scales.end());
}

void code_and_decode(std::vector<float>& row) {
  std::array<std::uint8_t, logfmt_tile_bytes> codes{};
  for (std::size_t begin = 0; begin < row.size(); begin += logfmt_tile) {
    int const count = static_cast<int>(std::min<std::size_t>(logfmt_tile, row.size() - begin));
    LogfmtScale const scale = logfmt_encode_tile(row.data() + begin, count, codes.data());
    logfmt_decode_tile(scale, codes.data(), row.data() + begin, count);
  }
}

}  // namespace switchyard::cli
