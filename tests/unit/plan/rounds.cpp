// What a round is found to fit into, against what each call of its handle then takes.
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "call/throughput.hpp"
#include "plan/round_plan.hpp"
#include "support/check.hpp"

namespace switchyard::test {
namespace {

struct Calls {
  std::int64_t hidden;
  std::int64_t top_k;
  OutputLayout layout;
};

ConstTensorView tensor(DType dtype, std::initializer_list<std::int64_t> shape) {
  static std::byte const some{};
  return {&some, dtype, shape};
}

// Of a dispatch; `ids` u8: cached, or routed without ids.
std::size_t received(Calls const& c, std::int64_t rows, DispatchArgs args, DType ids, bool weights) {
  if (ids != DType::u8) args.topk_idx = tensor(ids, {1, c.top_k});
  if (weights) args.topk_weights = tensor(DType::f32, {1, c.top_k});
  args.layout = c.layout;
  ReceiveShape shape = shape_of(args, c.layout, c.top_k);
  shape.rows = rows;
  return receive_block(shape).bytes;
}

std::size_t most_received(Calls const& c, std::int64_t rows) {
  std::size_t most = 0;
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32, DType::f8e4m3}) {
    for (bool const cast : {false, true}) {
      for (DType const ids : {DType::u8, DType::i32, DType::i64}) {
        for (bool const weights : {false, true}) {
          if (ids != DType::u8 && c.top_k == 0) continue;
          DispatchArgs args{.x = tensor(dtype, {1, c.hidden})};
          args.cast_to_fp8 = cast;
          most = std::max(most, received(c, rows, args, ids, weights && c.top_k > 0));
        }
      }
    }
  }
  return most;
}

// Parts one behind the other, none closer than the copies want them.
void check_staged(StagedShape const& shape, std::size_t most) {
  StagedRows const at = staged_rows(shape);
  auto const rows = static_cast<std::size_t>(shape.rows);
  std::size_t end = 0;
  for (auto const& [begin, bytes] :
       {std::pair{at.x, shape.row_bytes}, std::pair{at.topk_weights, shape.topk_weight_bytes},
        std::pair{at.row_weights, shape.row_weight_bytes}}) {
    check(begin >= end, "a part begins in the one before: ", begin, " before ", end);
    check_equal(begin % 128, std::size_t{0}, "alignment of a part");
    end = begin + rows * bytes;
  }
  check(at.bytes >= end, "parts end behind the whole: ", end, " behind ", at.bytes);
  check(at.bytes <= most, "what a combine stages: ", at.bytes, " bytes of ", most);
}

void check_combines(Calls const& c, std::int64_t rows, std::size_t most) {
  bool const flat = c.layout == OutputLayout::flat;
  std::size_t const weights = c.top_k == 0 ? 0 : (flat ? static_cast<std::size_t>(c.top_k) : 1) * sizeof(float);
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (std::size_t const topk_weights : {std::size_t{0}, weights}) {
      for (std::size_t const row_weights : {std::size_t{0}, sizeof(float)}) {
        check_staged({.rows = rows,
                      .row_bytes = static_cast<std::size_t>(c.hidden) * size_of(dtype),
                      .topk_weight_bytes = topk_weights,
                      .row_weight_bytes = row_weights},
                     most);
      }
    }
  }
}

TEST(RoundPlan, WhateverTheHandleIsUsedForFits) {
  for (std::int64_t const hidden : {1, 7, 128, 129, 512, 7168}) {
    for (std::int64_t const top_k : {0, 1, 3, 64}) {
      for (OutputLayout const layout : {OutputLayout::flat, OutputLayout::expanded}) {
        if (top_k == 0 && layout == OutputLayout::expanded) continue;
        Calls const c{hidden, top_k, layout};
        for (std::int64_t const rows : {0, 1, 31, 32, 33, 168, 100000}) {
          std::size_t const most = round_bytes({.hidden = hidden, .top_k = top_k}, rows);
          std::size_t const dispatch = most_received(c, rows);
          check(dispatch <= most, "what a dispatch receives: ", dispatch, " bytes of ", most);
          check_combines(c, rows, most);
        }
      }
    }
  }
}

// Rounds are no smaller than they must be: the widest call takes nearly all of it.
TEST(RoundPlan, IsNotMuchMoreThanTheWidestCallTakes) {
  for (std::int64_t const hidden : {512, 7168}) {
    Calls const c{hidden, 8, OutputLayout::flat};
    std::size_t const most = round_bytes({.hidden = hidden, .top_k = 8}, 1000);
    std::size_t const widest = most_received(c, 1000);
    check(most - widest <= widest / 50, "bytes that no call takes: ", most - widest, " of ", most);
  }
}

}  // namespace
}  // namespace switchyard::test
