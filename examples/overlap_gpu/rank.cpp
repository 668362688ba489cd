#include "rank.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"

namespace example {

namespace {

constexpr int max_tiles = 32;  // across
constexpr int max_width = max_tiles * tile;
constexpr std::size_t measured_runs = 5;

// Runs of all ranks, by rank.
template <typename T>
std::vector<std::vector<T>> gather(switchyard::Communicator& communicator, std::span<T const> mine) {
  std::vector<std::vector<T>> all;
  for (auto const& bytes : communicator.all_gather(std::as_bytes(mine))) {
    all.emplace_back(bytes.size() / sizeof(T));
    std::memcpy(all.back().data(), bytes.data(), bytes.size());
  }
  return all;
}

std::array<char, 16> id_of_gpu(int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  std::array<char, 16> id{};
  std::memcpy(id.data(), properties.uuid.bytes, id.size());
  return id;
}

// The product's share of the SMs: what the dispatches of all ranks on this GPU leave, in equal parts. A dispatch
// waits for its peers, so all of its blocks need an SM at the same time; the product can do with any number.
int blocks_for_product(switchyard::Communicator& communicator, Setup const& setup) {
  auto const mine = id_of_gpu(setup.device);
  int here = 0;
  for (auto const& id : gather<char>(communicator, mine))
    if (std::equal(id.begin(), id.end(), mine.begin(), mine.end())) ++here;
  int sms = 0;
  check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, setup.device), "number of SMs");
  int const blocks = sms / std::max(here, 1) - setup.sms;
  if (blocks < 1)
    throw std::runtime_error(std::to_string(here) + " ranks on a GPU of " + std::to_string(sms) +
                             " SMs: dispatches of " + std::to_string(setup.sms) +
                             " SMs each leave none for the product; take fewer (--sms)");
  return blocks;
}

switchyard::BufferOptions buffer_options(Job const& job, Setup const& setup) {
  auto const rows = static_cast<std::size_t>(job.ranks) * static_cast<std::size_t>(job.tokens);
  // The results of four dispatches: memory is free again only once a later call has seen that its kernel is done.
  constexpr std::size_t row_bytes = hidden * sizeof(std::uint16_t) + top_k * sizeof(std::int64_t) + 64;
  return {.max_tokens = job.tokens,
          .hidden = hidden,
          .num_experts = experts_per_rank * job.ranks,
          .top_k = top_k,
          .heap_bytes = 4 * rows * row_bytes + (std::size_t{4} << 20),
          .engine = switchyard::EngineKind::cuda,
          .device = setup.device,
          .num_sms = setup.sms};
}

std::vector<std::int64_t> ids_of(Job const& job) {
  std::vector<std::int64_t> ids;
  for (int token = 0; token < job.tokens; ++token)
    for (int slot = 0; slot < top_k; ++slot) ids.push_back(expert_of(job, job.rank, token, slot));
  return ids;
}

switchyard::ConstTensorView on_gpu(switchyard::ConstTensorView view) {
  view.device = switchyard::Device::cuda;
  return view;
}

}  // namespace

Rank::Rank(switchyard::Communicator communicator, Setup const& setup)
    : communicator_(std::move(communicator)),
      job_{.rank = communicator_.rank(), .ranks = communicator_.size(), .tokens = setup.tokens},
      gpu_(id_of_gpu(setup.device)),
      product_blocks_(blocks_for_product(communicator_, setup)),
      width_(4 * tile),
      x_(static_cast<std::size_t>(setup.tokens) * hidden),
      w_(static_cast<std::size_t>(max_width) * hidden),
      y_(static_cast<std::size_t>(setup.tokens) * max_width),
      topk_idx_(static_cast<std::size_t>(setup.tokens) * top_k),
      stamps_(1),
      buffer_(communicator_, buffer_options(job_, setup)) {
  to_device(topk_idx_.data(), ids_of(job_));
  check(fill({.to = w_.data(), .rows = max_width, .columns = hidden, .seed = seed_of_w}, compute_.get()),
        "filling w");
}

Product Rank::product() const {
  return {.x = x_.data(), .w = w_.data(), .y = y_.data(), .tokens = job_.tokens, .inner = hidden, .width = width_};
}

// Returns as soon as it is queued. It starts after what is queued on the compute stream (which writes x in a real
// layer), but runs on the buffer's own stream: what is queued on the compute stream from now on runs at the same
// time.
switchyard::Pending<switchyard::Dispatched> Rank::start_dispatch() {
  using switchyard::DType;
  switchyard::DispatchArgs args;
  args.x = on_gpu({x_.data(), DType::bf16, {job_.tokens, hidden}});
  args.topk_idx = on_gpu({topk_idx_.data(), DType::i64, {job_.tokens, top_k}});
  // Room for all that could arrive, so that the host need not learn what does.
  args.num_worst_tokens = static_cast<std::int64_t>(job_.ranks) * job_.tokens;
  args.cuda_stream = compute_.id();
  auto pending = buffer_.dispatch_async(args);
  // NOLINTNEXTLINE(performance-no-int-to-ptr): public headers know no CUDA types.
  auto* const stream = reinterpret_cast<cudaStream_t>(buffer_.cuda_stream());
  check(stamp(&stamps_.data()->dispatch_end, stream), "stamping the end of the dispatch");
  return pending;
}

void Rank::start_product() {
  check(multiply(product(), product_blocks_, &stamps_.data()->product, compute_.get()), "queueing the product");
}

Run Rank::run(Order order) {
  ++run_;
  to_device(stamps_.data(), {Stamps{}});
  check(fill({.to = x_.data(), .rows = job_.tokens, .columns = hidden, .seed = seed_of_x(job_.rank, run_)},
             compute_.get()),
        "filling x");
  check(cudaStreamSynchronize(compute_.get()), "filling x");

  // For the measurement alone: ranks start together, and when all is queued.
  gate(buffer_);
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  gate_open_.order(reinterpret_cast<cudaStream_t>(buffer_.cuda_stream()), compute_.get());

  std::optional<switchyard::Pending<switchyard::Dispatched>> pending;
  if (order != Order::product_alone) pending.emplace(start_dispatch());
  if (order == Order::one_after_the_other) pending->event().wait_on(compute_.id());
  if (order != Order::dispatch_alone) start_product();
  // Experts would be queued here, on the compute stream, behind pending->event().wait_on(compute_.id()).

  Run const seen = finish(order);
  if (pending) check_dispatched(job_, pending->get(), run_);
  if (order != Order::dispatch_alone) check_product(job_, product(), run_);
  return seen;
}

// Waits, and reads the clocks. A dispatch that is queued does not run yet: it may wait for SMs, even until the
// product is done. Therefore its span goes back from its end by the time its kernel has run.
Run Rank::finish(Order order) {
  buffer_.synchronize();
  check(cudaStreamSynchronize(compute_.get()), "the product");
  Stamps const stamps = to_host(stamps_.data(), 1)[0];
  Run run;
  run.product = stamps.product;
  if (order == Order::product_alone) return run;
  double us = 0;
  std::size_t next = 0;
  for (switchyard::PhaseTime const& phase : phases(buffer_)) {
    if (std::strcmp(phase.name, "launch") == 0 || next == run.phases.size()) continue;
    std::strncpy(run.phases[next].name.data(), phase.name, run.phases[next].name.size() - 1);
    run.phases[next++].us = phase.us;
    us += phase.us;
  }
  run.dispatch = {stamps.dispatch_end - static_cast<unsigned long long>(us * 1e3), stamps.dispatch_end};
  return run;
}

// The same run on all ranks: the median of what the slowest rank took.
Run Rank::median(Order order) {
  run(order);  // warms up
  std::array<Run, measured_runs> runs;
  std::array<double, measured_runs> mine{};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    runs[i] = run(order);
    mine[i] = runs[i].total_us();
  }
  std::array<std::pair<double, std::size_t>, measured_runs> slowest{};
  auto const all = gather<double>(communicator_, mine);
  for (std::size_t i = 0; i < slowest.size(); ++i) {
    slowest[i] = {0.0, i};
    for (auto const& of_rank : all) slowest[i].first = std::max(slowest[i].first, of_rank.at(i));
  }
  std::sort(slowest.begin(), slowest.end());
  return runs[slowest[measured_runs / 2].second];
}

// So wide that the product takes about as long as the dispatch.
void Rank::choose_width() {
  double const dispatch_us = median(Order::dispatch_alone).total_us();
  double const product_us = median(Order::product_alone).total_us();
  double const wanted = product_us > 0 ? width_ * dispatch_us / product_us / tile : 1;
  width_ = tile * static_cast<int>(std::lround(std::clamp(wanted, 1.0, 1.0 * max_tiles)));
}

Measured Rank::measure() {
  choose_width();
  Measured measured;
  measured.gpu = gpu_;
  measured.product_blocks = product_blocks_;
  measured.width = width_;
  measured.dispatch_alone = median(Order::dispatch_alone);
  measured.product_alone = median(Order::product_alone);
  measured.one_after_the_other = median(Order::one_after_the_other);
  measured.together = median(Order::together);
  return measured;
}

}  // namespace example
