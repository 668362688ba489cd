#include "oracle/sums.hpp"

#include <cmath>

#include "oracle/numbers.hpp"
#include "oracle/sent.hpp"

namespace switchyard::oracle {

namespace {

std::vector<float> output_of(Terms const& terms, JobData const& data, Contribution const& part) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(terms.hidden) * size_of(terms.output_dtype));
  data.fill_output(part.maker, part.row, bytes);
  return decode_row(bytes, terms.output_dtype);
}

}  // namespace

std::vector<float> sum_of(Terms const& terms, JobData const& data, SumTerms const& sum) {
  std::vector<float> total = sum.start;
  total.resize(static_cast<std::size_t>(terms.hidden));
  bool first = !sum.from_zero && sum.start.empty();
  for (Contribution const& part : sum.parts) {
    std::vector<float> row = output_of(terms, data, part);
    if (sum.coding == CombineCoding::logfmt10) code_and_decode(row);
    for (std::size_t h = 0; h < total.size(); ++h) {
      float const product = row[h] * part.weight;
      total[h] = first ? product : total[h] + product;
    }
    first = false;
  }
  return total;
}

void expect_sum(Place const& place, Terms const& terms, std::vector<float> const& sum, std::byte const* seen) {
  expect_bytes(place, encode_row(sum, terms.output_dtype), seen, size_of(terms.output_dtype));
}

void expect_close(Place const& place, Terms const& terms, JobData const& data, SumTerms sum,
                  std::byte const* seen) {
  std::vector<float> misses(static_cast<std::size_t>(terms.hidden));
  for (Contribution const& part : sum.parts) {
    std::vector<float> const of_part = coding_misses(output_of(terms, data, part));
    for (std::size_t h = 0; h < misses.size(); ++h) misses[h] += of_part[h] * std::fabs(part.weight);
  }
  sum.coding = CombineCoding::none;
  std::vector<float> const exact = sum_of(terms, data, sum);
  float const rounding = terms.output_dtype == DType::f16 ? 0x1p-11F : 0x1p-8F;
  for (std::size_t h = 0; h < exact.size(); ++h) {
    float const value = get(seen, terms.output_dtype, h);
    float const most = misses[h] + (std::fabs(exact[h]) + misses[h]) * rounding + 1e-6F;
    if (std::fabs(value - exact[h]) <= most) continue;
    Place at = place;
    at.channel = static_cast<std::int64_t>(h);
    throw_mismatch(at, fmt::format("{} within {}", exact[h], most), fmt::format("{}", value));
  }
}

}  // namespace switchyard::oracle
