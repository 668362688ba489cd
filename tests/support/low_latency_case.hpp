// What one case of the low-latency mode varies.
#pragma once

#include <cstdint>
#include <iosfwd>

#include "oracle/low_latency_check.hpp"
#include "support/case.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard::test {

struct SlotCase {
  Launch launch = Launch::threads;
  int ranks = 3;
  std::int64_t tokens = 6;  // M
  Tokens counts = Tokens::varied;
  std::int64_t hidden = 20;
  int experts = 8;
  int top_k = 3;
  Routing routing = Routing::uniform;
  DType dtype = DType::bf16;     // u8: an opaque payload of
  std::int64_t row_bytes = 0;    // so many bytes
  std::int64_t scale_bytes = 0;  // and so many of scales
  SendCast cast = SendCast::none;
  SlotLayout layout = SlotLayout::expert_major;
  DType id_dtype = DType::i64;
  bool weights = true;  // travel (rank_major), count in the sums (expert_major)
  DType combine_dtype = DType::bf16;
  CombineCoding coding = CombineCoding::none;
  bool zero_copy = true;          // experts write into outputs(), or into memory of their own
  std::int64_t extra_stride = 0;  // elements between rows of x, and of out
  bool scales_by_column = false;  // of an f8e4m3 x
  bool identity = false;          // experts give back what they get
  int max_results = 2;
  int workers = 1;
  std::uint64_t seed = seed_or(1);

  [[nodiscard]] bool by_expert() const { return layout == SlotLayout::expert_major; }
  [[nodiscard]] bool opaque() const { return dtype == DType::u8; }
  [[nodiscard]] std::int64_t width() const { return opaque() ? row_bytes : hidden; }
  [[nodiscard]] std::int64_t groups() const { return (hidden + 127) / 128; }
  [[nodiscard]] DType received_dtype() const { return cast == SendCast::none ? dtype : DType::f8e4m3; }
  [[nodiscard]] bool scaled() const {
    return cast != SendCast::none || dtype == DType::f8e4m3 || (opaque() && scale_bytes > 0);
  }
  // Of the scales that arrive: dtype, and elements of a row.
  [[nodiscard]] DType scale_dtype() const {
    if (opaque()) return DType::u8;
    return cast == SendCast::fp8_ue8m0 ? DType::i32 : DType::f32;
  }
  [[nodiscard]] std::int64_t scale_width() const {
    if (opaque()) return scale_bytes;
    return cast == SendCast::fp8_ue8m0 ? (groups() + 3) / 4 : groups();
  }
};

constexpr char const* name_of(SlotLayout layout) {
  return layout == SlotLayout::expert_major ? "expert_major" : "rank_major";
}

constexpr char const* name_of(SendCast cast) {
  constexpr char const* names[] = {"none", "fp8", "fp8_pow2", "fp8_ue8m0"};
  return names[static_cast<int>(cast)];
}

// As designated initialisers, to paste into a test.
std::ostream& operator<<(std::ostream& out, SlotCase const& c);

// For the oracle.
oracle::Terms terms_of(SlotCase const& c);
oracle::SlotTerms slot_terms(SlotCase const& c);

// With room for the case's rows, where the default has none.
LowLatencyOptions slot_options(SlotCase const& c);

}  // namespace switchyard::test
