#include "cli/bench/low_latency_calls.hpp"

#include <algorithm>

#include "api/engine_table.hpp"

namespace switchyard::cli {

namespace {

LowLatencyOptions buffer_options(Case const& of) {
  BenchOptions const& options = of.options();
  return {.max_tokens = of.max_tokens(),
          .hidden = options.problem.hidden,
          .num_experts = options.problem.experts,
          .top_k = options.problem.top_k,
          .max_row_bytes = options.problem.payload == Payload::f32 ? options.problem.hidden * 4 : 0,
          .timeout = options.timeout(),
          .engine = options.engine,
          .num_workers = options.workers,
          .num_sms = options.sms};
}

}  // namespace

LatencyCalls::LatencyCalls(Case const& of, Communicator const& communicator)
    : case_(of), buffer_(communicator, buffer_options(of)), memory_(buffer_.engine() == EngineKind::cuda) {
  if (on_gpu()) stream_ = require_gpu_tools().make_stream();
  Problem const problem = of.problem();
  out_ = memory_.allocate(DType::bf16, {problem.tokens, problem.hidden});
  host_inputs_.reserve(static_cast<std::size_t>(of.sets()));
  for (int set = 0; set < of.sets(); ++set) {
    host_inputs_.emplace_back(of.problem(set), of.routing(set), communicator.rank());
    sets_.push_back(host_inputs_.back().place(memory_));
  }
  select(0);
}

void LatencyCalls::stage(int set) {
  DispatchArgs const& from = sets_[static_cast<std::size_t>(set)];
  bool const first = staged_tensors_.empty();
  for (auto const part :
       {&DispatchArgs::x, &DispatchArgs::scales, &DispatchArgs::topk_idx, &DispatchArgs::topk_weights}) {
    ConstTensorView const& source = from.*part;
    if (!source.given()) continue;
    if (first) {
      staged_tensors_.push_back(memory_.allocate(source.dtype, {source.size(0), source.size(1)}));
      staged_.*part = staged_tensors_.back();
    }
    // The memory is ours: a tensor that was allocated here.
    require_gpu_tools().copy_async(const_cast<void*>((staged_.*part).data), source.data, bytes_of(source),
                                   handle());
  }
  current_ = staged_;
}

LowLatencyDispatchArgs LatencyCalls::dispatch_args() const {
  LowLatencyDispatchArgs args;
  args.x = current_.x;
  args.scales = current_.scales;
  args.topk_idx = current_.topk_idx;
  if (!case_.by_expert()) args.topk_weights = current_.topk_weights;
  args.cast = case_.cast();
  args.layout = case_.latency().layout;
  if (dispatch_wait_ns_.given()) args.wait_ns_per_source = dispatch_wait_ns_.view();
  args.cuda_stream = handle();
  return args;
}

LowLatencyCombineArgs LatencyCalls::combine_args() {
  LowLatencyCombineArgs args;
  args.x = outputs();
  args.handle = received_.handle;
  if (case_.by_expert()) args.topk_weights = current_.topk_weights;
  args.coding = case_.latency().coding;
  args.out = out_;
  if (combine_wait_ns_.given()) args.wait_ns_per_source = combine_wait_ns_.view();
  args.cuda_stream = handle();
  return args;
}

void LatencyCalls::count_waits() {
  for (Tensor* const waits : {&dispatch_wait_ns_, &combine_wait_ns_}) {
    *waits = memory_.allocate(DType::i64, {case_.problem().ranks});
    memory_.fill(waits->data<void>(), 0, static_cast<std::size_t>(waits->view().numel()) * sizeof(std::int64_t));
  }
}

std::vector<double> LatencyCalls::waited_us(Part part) const {
  Tensor const waits = memory_.fetch(part == Part::dispatch ? dispatch_wait_ns_ : combine_wait_ns_);
  std::vector<double> us;
  for (std::int64_t rank = 0; rank < waits.size(0); ++rank)
    us.push_back(static_cast<double>(waits.data<std::int64_t>()[rank]) / 1e3);
  return us;
}

Tensor LatencyCalls::outputs() {
  if (case_.latency().in_place()) return buffer_.outputs(received_.handle, DType::bf16);
  if (!other_outputs_.given()) {
    std::int64_t const hidden = case_.problem().hidden;
    other_outputs_ = memory_.allocate(DType::bf16, {received_.x.size(0), received_.x.size(1), hidden});
  }
  return other_outputs_;
}

void LatencyCalls::run(Part part) {
  switch (part) {
    case Part::dispatch: received_ = buffer_.dispatch(dispatch_args()); return;
    case Part::dispatch_send: received_ = buffer_.send_dispatch(dispatch_args(), receive_); return;
    case Part::combine: buffer_.combine(combine_args()); return;
    case Part::combine_send: buffer_.send_combine(combine_args(), receive_); return;
    case Part::dispatch_receive:
    case Part::combine_receive: receive_(handle()); return;
    case Part::both:
      received_ = buffer_.dispatch(dispatch_args());
      buffer_.combine(combine_args());
      return;
    default: return;  // nothing
  }
}

void LatencyCalls::release() {
  receive_ = {};
  received_ = {};
}

}  // namespace switchyard::cli
