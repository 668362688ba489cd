#include "all_to_all.hpp"

namespace mpi_alltoall {

void Counts::set_first() {
  total = 0;
  for (std::size_t rank = 0; rank < rows.size(); ++rank) {
    first[rank] = total;
    total += rows[rank];
  }
}

}  // namespace mpi_alltoall
