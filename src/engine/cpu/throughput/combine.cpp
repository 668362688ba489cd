// Throughput combine: each rank stages its expert outputs where need be and announces where they lie; then it pulls
// the rows of its own tokens, sums them, and closes the call.
#include <fmt/core.h>

#include <atomic>
#include <cstring>
#include <vector>

#include "base/trace.hpp"
#include "call/heap_tensors.hpp"
#include "engine/cpu/simd/kernels.hpp"
#include "engine/cpu/throughput/engine.hpp"
#include "engine/cpu/throughput/row_partners.hpp"
#include "engine/cpu/token_chunks.hpp"

namespace switchyard::cpu {

// Where the expert outputs of a rank lie.
struct SourceRows {
  std::byte const* x = nullptr;
  float const* weights = nullptr;
  float const* row_weights = nullptr;
};

namespace {

std::size_t row_bytes_of(ConstTensorView const& view) {
  std::int64_t const per_row = view.ndim == 2 ? view.size(1) : 1;
  return static_cast<std::size_t>(per_row) * size_of(view.dtype);
}

bool is_contiguous(ConstTensorView const& view) {
  if (view.ndim == 1) return view.stride(0) == 1 || view.size(0) <= 1;
  return (view.stride(1) == 1 || view.size(1) <= 1) && (view.stride(0) == view.size(1) || view.size(0) <= 1);
}

std::byte const* row_at(ConstTensorView const& view, std::int64_t row) {
  return static_cast<std::byte const*>(view.data) +
         row * view.stride(0) * static_cast<std::int64_t>(size_of(view.dtype));
}

}  // namespace

class CombineRun {
 public:
  CombineRun(Engine& engine, CombineCall& call)
      : engine_(engine), call_(call), link_(engine.link()), epoch_(++engine.epoch_) {}

  void run() {
    stage_all();
    announce();
    locate();
    pull();
    // A peer that gave up may have freed and reused the rows that were just read. Then this throws, rather than
    // hand out their sum. The acquire fence keeps the reads of pull() before the loads of check_usable(); it pairs
    // with the release store in Signals::report(), which the peer makes before it reuses the rows.
    std::atomic_thread_fence(std::memory_order_acquire);
    link_.signals.check_usable();
    // Afterwards all ranks that had tokens here have read their rows.
    meet_row_partners(link_, routing(), &ControlArea::done, epoch_, "combine/close");
  }

 private:
  [[nodiscard]] detail::Routing const& routing() const { return *call_.args.handle.routing(); }

  // Returns where peers can read the tensor, as an offset in the heap: a tensor that lies elsewhere is copied
  // there.
  std::int64_t stage(ConstTensorView const& view) {
    if (!view.given()) return -1;
    std::size_t const row_bytes = row_bytes_of(view);
    std::size_t const bytes = static_cast<std::size_t>(view.size(0)) * row_bytes;
    if (is_contiguous(view)) {
      if (bytes == 0) return 0;
      if (auto const offset = engine_.heap_->offset_of(view.data, bytes)) return static_cast<std::int64_t>(*offset);
    }
    auto block = engine_.heap_->allocate(bytes);
    if (!block) {
      call_.refusal = no_room_to_stage(*engine_.heap_, bytes, view.size(0));
      return -1;
    }
    copy_rows(view, block->data, row_bytes);
    staged_.push_back(*block);
    return static_cast<std::int64_t>(block->offset);
  }

  void copy_rows(ConstTensorView const& view, std::byte* to, std::size_t row_bytes) {
    TokenChunks chunks(view.size(0));
    engine_.pool_.run(call_.workers, [&](int worker) {
      TraceScope const span("combine/stage", link_.rank, worker);
      chunks.for_each([&](std::int64_t row) {
        stream_copy(to + static_cast<std::size_t>(row) * row_bytes, row_at(view, row), row_bytes);
      });
      store_fence();  // the release in announce() does not order non-temporal stores
    });
  }

  void stage_all() {
    if (call_.refusal) return;
    announcement_.x_offset = stage(call_.args.x);
    if (!call_.refusal) announcement_.weights_offset = stage(call_.args.topk_weights);
    if (!call_.refusal) announcement_.row_weights_offset = stage(call_.args.row_weights);
  }

  void announce() {
    TraceScope const span("combine/announce", link_.rank);
    announcement_.epoch = epoch_;
    announcement_.phase = "combine/announce";
    announcement_.refusal = call_.refusal;
    announcement_.terms = terms_of(call_);
    open_call(link_, announcement_);
  }

  // Where a peer's tensor lies. The terms agree, so the peer has one if this rank has. An offset that came from
  // outside must leave room for all rows of that rank.
  std::byte const* located(int peer, ConstTensorView const& mine, std::int64_t offset) {
    if (!mine.given()) return nullptr;
    std::size_t const row_bytes = row_bytes_of(mine);
    auto const at = static_cast<std::size_t>(offset);  // -1 (none) becomes the largest of all
    std::size_t const bytes =
        static_cast<std::size_t>(routing().rows_of_rank[static_cast<std::size_t>(peer)]) * row_bytes;
    std::size_t const heap_bytes = engine_.heap_->heap_bytes(peer);
    if (at > heap_bytes || bytes > heap_bytes - at) {
      link_.signals.fail(SystemError(fmt::format("rank {}: announce of rank {} is broken: {} bytes at {} of {}",
                                                 link_.rank, peer, bytes, at, heap_bytes),
                                     {.rank = link_.rank, .peer = peer, .phase = "combine/announce"}));
    }
    return engine_.heap_->heap(peer) + at;
  }

  void locate() {
    CombineArgs const& args = call_.args;
    for (int peer = 0; peer < link_.num_ranks; ++peer) {
      Announce const& from = link_.control.announce(link_.rank, peer, epoch_);
      sources_.push_back(
          {.x = located(peer, args.x, from.x_offset),
           .weights = reinterpret_cast<float const*>(located(peer, args.topk_weights, from.weights_offset)),
           .row_weights =
               reinterpret_cast<float const*>(located(peer, args.row_weights, from.row_weights_offset))});
    }
  }

  // The rows of one token, wherever they lie. Kept from token to token, so that its memory is reused.
  struct Terms {
    std::vector<void const*> rows;
    std::vector<float> weights;
  };

  void sum_token(std::int64_t token, Terms& terms) const {
    std::size_t const row_bytes = row_bytes_of(call_.args.x);
    terms.rows.clear();
    terms.weights.clear();
    for (Route const& route : routing().table.of(token)) {
      SourceRows const& from = sources_[static_cast<std::size_t>(route.rank)];
      terms.rows.push_back(from.x + static_cast<std::size_t>(route.row) * row_bytes);
      terms.weights.push_back(from.row_weights != nullptr ? from.row_weights[route.row] : 1.0F);
    }
    CombineArgs const& args = call_.args;
    sum_rows({.rows = terms.rows,
              .row_weights = args.row_weights.given() ? terms.weights.data() : nullptr,
              .bias0 = args.bias0.given() ? row_at(args.bias0, token) : nullptr,
              .bias1 = args.bias1.given() ? row_at(args.bias1, token) : nullptr,
              .out = const_cast<std::byte*>(row_at(call_.out, token)),
              .count = static_cast<std::size_t>(args.x.size(1)),
              .dtype = args.x.dtype});
  }

  // Takes the weight of a slot from the row of the rank that holds the slot's expert, or adds up those of all
  // ranks.
  void gather_weights(std::int64_t token) const {
    auto const top_k = static_cast<std::size_t>(call_.out_weights.size(1));
    bool const all = call_.args.weights_of_all_ranks;
    float* const out = static_cast<float*>(call_.out_weights.data) + static_cast<std::size_t>(token) * top_k;
    std::fill_n(out, top_k, 0.0F);
    for (Route const& route : routing().table.of(token)) {
      float const* const from = sources_[static_cast<std::size_t>(route.rank)].weights;
      auto const row = static_cast<std::size_t>(route.row);
      if (routing().layout == OutputLayout::expanded) {
        out[route.slot] = from[row];
        continue;
      }
      for (std::size_t slot = 0; slot < top_k; ++slot) {
        if (all) {
          out[slot] += from[row * top_k + slot];
        } else if (routing().table.slot_rank[static_cast<std::size_t>(token) * top_k + slot] == route.rank) {
          out[slot] = from[row * top_k + slot];
        }
      }
    }
  }

  void pull() {
    TokenChunks chunks(routing().num_tokens);
    engine_.pool_.run(call_.workers, [&](int worker) {
      TraceScope const span("combine/pull", link_.rank, worker);
      Terms terms;
      chunks.for_each([&](std::int64_t token) {
        sum_token(token, terms);
        if (call_.out_weights.given()) gather_weights(token);
      });
      store_fence();  // the caller may hand the result to any thread
    });
  }

  Engine& engine_;
  CombineCall& call_;
  Link link_;
  std::uint64_t epoch_;
  Announcement announcement_;
  std::vector<SymmetricHeap::Block> staged_;  // they go when every peer has read them
  std::vector<SourceRows> sources_;
};

void Engine::combine(CombineCall& call) {
  run_call("combine", [&] { CombineRun(*this, call).run(); });
}

}  // namespace switchyard::cpu
