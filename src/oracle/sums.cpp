#include "oracle/sums.hpp"

#include <cmath>
#include <map>

#include "oracle/numbers.hpp"
#include "oracle/sent.hpp"

namespace switchyard::oracle {

namespace {

std::vector<float> output_of(Terms const& terms, JobData const& data, Contribution const& part) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(terms.hidden) * size_of(terms.output_dtype));
  data.fill_output(part.maker, part.row, bytes);
  return decode_row(bytes, terms.output_dtype);
}

std::map<int, std::vector<Contribution>> parts_by_node(Terms const& terms, std::vector<Contribution> const& parts) {
  std::map<int, std::vector<Contribution>> by_node;
  for (Contribution const& part : parts) by_node[terms.node_of(part.maker)].push_back(part);
  return by_node;
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

std::vector<float> sum_over_nodes(Terms const& terms, JobData const& data, SumTerms const& sum, int owner) {
  if (!terms.spans_nodes()) return sum_of(terms, data, sum);
  std::vector<float> total = sum.start;
  total.resize(static_cast<std::size_t>(terms.hidden));
  bool first = sum.start.empty();
  for (auto const& [node, parts] : parts_by_node(terms, sum.parts)) {
    std::vector<float> of_node = sum_of(terms, data, {.parts = parts, .coding = sum.coding});
    bool const travels = node != terms.node_of(owner) && !terms.f32_partials;
    if (travels) of_node = decode_row(encode_row(of_node, terms.output_dtype), terms.output_dtype);
    if (travels && sum.coding == CombineCoding::logfmt10) code_and_decode(of_node);
    for (std::size_t h = 0; h < total.size(); ++h) total[h] = first ? of_node[h] : total[h] + of_node[h];
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
