// Arguments that a call must refuse, and the mistakes that dispatches of both modes refuse alike.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/tensor.hpp"

namespace switchyard::test {

template <typename Args>
struct BadCall {
  std::string what;
  std::function<void(Args&)> spoil;  // on the culprit only
  std::vector<std::string_view> words;
};

// Of a good call with an x of [6, 20] bf16, and ids and weights of [6, 2].
template <typename Args>
std::vector<BadCall<Args>> bad_x() {
  return {
      {"not given", [](Args& a) { a.x = {}; }, {"x"}},
      {"null", [](Args& a) { a.x.data = nullptr; }, {"x"}},
      {"1 dimension", [](Args& a) { a.x.ndim = 1; }, {"x", "2", "1"}},
      {"3 dimensions",
       [](Args& a) {
         a.x.ndim = 3;
         a.x.shape[2] = a.x.strides[2] = 1;
       },
       {"x", "2", "3"}},
      {"hidden 19", [](Args& a) { a.x.shape[1] = 19; }, {"x", "20", "19"}},
      {"negative rows", [](Args& a) { a.x.shape[0] = -1; }, {"x", "-1"}},
      {"i32", [](Args& a) { a.x.dtype = DType::i32; }, {"x", "i32"}},
      {"i64", [](Args& a) { a.x.dtype = DType::i64; }, {"x", "i64"}},
      {"elements apart", [](Args& a) { a.x.strides[1] = 2; }, {"x", "stride", "2"}},
  };
}

template <typename Args>
std::vector<BadCall<Args>> bad_ids() {
  return {
      {"no ids", [](Args& a) { a.topk_idx = a.topk_weights = {}; }, {"topk_idx"}},
      {"ids null", [](Args& a) { a.topk_idx.data = nullptr; }, {"topk_idx"}},
      {"ids of 1 dimension", [](Args& a) { a.topk_idx.ndim = 1; }, {"topk_idx"}},
      {"ids of 5 rows", [](Args& a) { a.topk_idx.shape[0] = 5; }, {"topk_idx", "6", "5"}},
      {"ids of top_k 3", [](Args& a) { a.topk_idx.shape[1] = 3; }, {"topk_idx", "2", "3"}},
      {"ids of f32", [](Args& a) { a.topk_idx.dtype = DType::f32; }, {"topk_idx", "f32"}},
  };
}

template <typename Args>
std::vector<BadCall<Args>> bad_weights() {
  return {
      {"weights null", [](Args& a) { a.topk_weights.data = nullptr; }, {"topk_weights"}},
      {"weights of 5 rows", [](Args& a) { a.topk_weights.shape[0] = 5; }, {"topk_weights", "6", "5"}},
      {"weights of top_k 1", [](Args& a) { a.topk_weights.shape[1] = 1; }, {"topk_weights", "2", "1"}},
      {"weights of f16", [](Args& a) { a.topk_weights.dtype = DType::f16; }, {"topk_weights", "f32", "f16"}},
  };
}

}  // namespace switchyard::test
