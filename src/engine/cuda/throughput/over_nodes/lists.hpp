// What the kernels of calls over nodes have to do: lists that the host writes into pinned memory, one for each
// launch. Hosts know where every row goes, so kernels follow no routing, and wait for nobody.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "switchyard/dtype.hpp"

namespace switchyard::cuda {

// A top-k slot of a row.
struct MoveSlot {
  std::int32_t slot;
  std::int32_t id;  // the receiver's number of its expert
  float weight;
};

// One place that a row goes to, and what is written with it. Null pointers: nothing.
struct MoveTo {
  std::byte* x;
  std::byte* scales;
  std::byte* ids;  // MoveArgs::row_slots of them; -1 where no slot says another
  float* weights;  // as many; 0 where no slot says another
  std::int32_t* token;
  std::uint32_t first_slot;
  std::uint32_t slots;
};

struct MoveRow {
  std::byte const* x;
  std::byte const* scales;  // null: none
  std::uint32_t first_place;
  std::uint32_t places;
  std::int32_t token;
  std::uint32_t from_caller;  // 1: scales lie as the caller's do, MoveArgs::scale_stride apart
};

struct MoveArgs {
  MoveRow const* rows;
  MoveTo const* places;
  MoveSlot const* slots;
  std::uint32_t count;  // of rows
  std::uint32_t row_bytes;
  std::uint32_t scale_words;  // of a row, 4 bytes each
  std::int64_t scale_stride;  // between the words of a row of the caller's, in words
  std::uint32_t row_slots;    // ids and weights of a row
  std::uint32_t id_bytes;     // of an id; 0: none are written
  std::uint32_t width;        // of an access, in bytes: what all rows are aligned to
};

// Rows of the own result that no source writes.
struct PadRange {
  std::int64_t begin;
  std::int64_t end;
};

struct PadArgs {
  PadRange const* ranges;
  std::uint32_t count;
  std::byte* x;  // null: rows and scales are left as they are
  std::byte* scales;
  std::byte* ids;
  std::byte* weights;
  std::int32_t* token;
  std::uint32_t row_bytes;
  std::uint32_t scale_bytes;
  std::uint32_t topk_bytes;    // of a row's ids
  std::uint32_t weight_bytes;  // of a row's weights
};

// A row that goes into a sum.
struct SumTerm {
  std::byte const* row;
  float const* weight;  // null: 1, no multiplication
  std::uint64_t f32;    // 1: a row of f32, whatever the dtype of the call
};

// out = terms[first .. own] + (terms[own .. own_end]) + terms[own_end .. end]: what nodes bring to the sum of a
// token, where the rows of the own node are a sum of their own. Everything in f32, each product and sum rounded by
// itself, as on the CPU engine. A sum begins with its first term; one of no terms is +0.
struct SumRow {
  std::byte* out;
  std::uint32_t first;
  std::uint32_t own;
  std::uint32_t own_end;
  std::uint32_t end;
  std::uint64_t out_f32;  // 1: the sum is not rounded to the dtype of the call
};

// The same of single numbers.
struct SumNumber {
  float* out;
  std::uint32_t first;
  std::uint32_t own;
  std::uint32_t own_end;
  std::uint32_t end;
};

struct SumArgs {
  SumRow const* rows;
  SumTerm const* terms;
  SumNumber const* numbers;
  float const* const* number_terms;
  std::uint32_t count;  // of rows
  std::uint32_t number_count;
  std::uint32_t elements;   // of a row
  std::uint32_t width;      // of an access to rows of the call's dtype, in bytes
  std::uint32_t from_zero;  // 1: sums of numbers begin with 0
  DType dtype;
};

cudaError_t launch_moves(MoveArgs const& args, int blocks, cudaStream_t stream);
cudaError_t launch_padding(PadArgs const& args, int blocks, cudaStream_t stream);
cudaError_t launch_sums(SumArgs const& args, int blocks, cudaStream_t stream);
cudaError_t load_lists();

}  // namespace switchyard::cuda
