#include "engine/cpu/throughput/mover.hpp"

#include "base/trace.hpp"
#include "call/rows.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "engine/cpu/throughput/combine_crossing.hpp"
#include "engine/cpu/throughput/dispatch_crossing.hpp"
#include "engine/cpu/throughput/local_rows.hpp"
#include "engine/cpu/throughput/place.hpp"
#include "engine/cpu/throughput/row_sums.hpp"
#include "engine/cpu/token_chunks.hpp"

namespace switchyard::cpu {

namespace {

// One thread does all that has to do with other nodes, and the others write the rows of this one.
void place_between(WorkerPool& pool, RowWriter const& writer, PlaceTask const& task) {
  LocalRows local(writer, task.call.routing->num_tokens);
  DispatchCrossing between(task);
  pool.run(task.call.workers, [&](int worker) {
    TraceScope const span("dispatch/place", task.rank, worker);
    if (worker == 0) return between.run(local);
    local.write_all();
  });
}

void sum_token(RowSums& sums, detail::Routing const& routing, std::int64_t token) {
  sums.begin();
  for (Route const& route : routing.table.of(token)) sums.add({.rank = route.rank, .row = route.row});
  if (token + 1 < routing.num_tokens)
    for (Route const& route : routing.table.of(token + 1)) sums.expect({.rank = route.rank, .row = route.row});
  sums.finish(token);
}

}  // namespace

void Mover::stage(ConstTensorView const& view, std::byte* to, int workers) {
  std::size_t const row_bytes = row_bytes_of(view);
  TokenChunks chunks(view.size(0));
  pool_.run(workers, [&](int worker) {
    TraceScope const span("combine/stage", heap_->rank(), worker);
    chunks.for_each([&](std::int64_t row) {
      stream_copy(to + static_cast<std::size_t>(row) * row_bytes, row_at(view, row), row_bytes);
    });
    store_fence();  // the release of the announce does not order non-temporal stores
  });
}

void Mover::place(PlaceTask const& task) {
  RowWriter const writer(task.call, task.destinations);
  writer.fill_padding(task.destinations[static_cast<std::size_t>(task.rank)]);
  if (task.crossing != nullptr) return place_between(pool_, writer, task);
  TokenChunks chunks(task.call.routing->num_tokens);
  pool_.run(task.call.workers, [&](int worker) {
    TraceScope const span("dispatch/place", task.rank, worker);
    writer.write(chunks);
  });
}

void Mover::pull(PullTask const& task) {
  if (task.crossing != nullptr) {
    RowSums sums(task.call, task.sources);
    return CombineCrossing(task, sums).run();
  }
  detail::Routing const& routing = *task.call.args.handle.routing();
  TokenChunks chunks(routing.num_tokens);
  pool_.run(task.call.workers, [&](int worker) {
    TraceScope const span("combine/pull", task.rank, worker);
    RowSums sums(task.call, task.sources);
    chunks.for_each([&](std::int64_t token) {
      sum_token(sums, routing, token);
      if (task.call.out_weights.given()) sums.gather_weights(token, [](int) { return true; });
    });
    store_fence();  // the caller may hand the result to any thread
  });
}

}  // namespace switchyard::cpu
