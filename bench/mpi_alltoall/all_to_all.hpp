// What every exchange of rows by MPI_Alltoallv takes: warm arrays, counts, datatypes of a row.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <memory>
#include <vector>

namespace mpi_alltoall {

// An array without initialisation, that grows but never shrinks: buffers are warm after the first iteration.
template <typename T>
class Warm {
 public:
  T* at_least(std::size_t count) {
    if (count > capacity_) {
      data_ = std::make_unique_for_overwrite<T[]>(count);
      capacity_ = count;
    }
    return data_.get();
  }
  [[nodiscard]] T* data() const { return data_.get(); }

 private:
  std::unique_ptr<T[]> data_;
  std::size_t capacity_ = 0;
};

// How many rows go to (or come from) each rank and where theirs begin.
struct Counts {
  std::vector<int> rows;
  std::vector<int> first;
  int total = 0;

  explicit Counts(int ranks) : rows(static_cast<std::size_t>(ranks)), first(static_cast<std::size_t>(ranks)) {}
  void set_first();
};

inline MPI_Datatype make_type(MPI_Datatype element, std::size_t count) {
  MPI_Datatype type = MPI_DATATYPE_NULL;
  MPI_Type_contiguous(static_cast<int>(count), element, &type);
  MPI_Type_commit(&type);
  return type;
}

inline void all_to_all(void const* from, Counts const& to_ranks, void* to, Counts const& from_ranks,
                       MPI_Datatype type) {
  MPI_Alltoallv(from, to_ranks.rows.data(), to_ranks.first.data(), type, to, from_ranks.rows.data(),
                from_ranks.first.data(), type, MPI_COMM_WORLD);
}

}  // namespace mpi_alltoall
