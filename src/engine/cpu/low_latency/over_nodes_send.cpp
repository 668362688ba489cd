// What a rank does as a source: its tokens go to other nodes, and their sums come back.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/check.hpp"
#include "base/deadline.hpp"
#include "base/interrupt.hpp"
#include "control/idling.hpp"
#include "engine/cpu/low_latency/over_nodes.hpp"
#include "layout/routes.hpp"
#include "layout/scale_out/chunk_writer.hpp"
#include "layout/scale_out/combine_chunk.hpp"

namespace switchyard::cpu {

namespace {

constexpr std::chrono::milliseconds patience_for_the_last{1000};

scale_out::DispatchTerms terms_of(SlotRows const& rows, SlotSizes const& sizes) {
  bool const by_expert = rows.layout == SlotLayout::expert_major;
  return {.layout = by_expert ? OutputLayout::expanded : OutputLayout::flat,
          .top_k = sizes.top_k,
          .weights = rows.weights,
          .row_bytes = rows.row_bytes(),
          .scale_bytes = rows.scale_bytes(),
          .max_tokens = sizes.max_tokens};
}

void number_tokens(scale_out::NodeTokens const& tokens, std::int64_t count, std::vector<std::int32_t>& index) {
  index.assign(static_cast<std::size_t>(count), -1);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    index[static_cast<std::size_t>(tokens.tokens[i])] = static_cast<std::int32_t>(i);
}

}  // namespace

OverNodes::Header OverNodes::header_of(Kind kind, FrameUse const& use) const {
  LowLatency::Frame const& frame = engine_.of(use);
  bool const rows = kind == Kind::rows;
  return {.magic = scale_out::slot_chunk_magic,
          .kind = kind,
          .epoch = use.epoch,
          .digest = rows ? frame.digest : frame.combine_digest,
          .frame = static_cast<std::uint32_t>(use.frame),
          .combine = rows ? 0 : static_cast<std::uint32_t>(frame.combines - 1)};
}

// Without those of masked ranks, which get nothing.
std::vector<std::int32_t> OverNodes::ids_of(SlotRoutes const& routes) const {
  std::vector<std::int32_t> ids;
  ids.reserve(static_cast<std::size_t>(routes.tokens()) * static_cast<std::size_t>(slots_.sizes().top_k));
  for (std::int64_t token = 0; token < routes.tokens(); ++token)
    for (std::int32_t const expert : routes.experts(token))
      ids.push_back(expert >= 0 && engine_.masked(routes.rank_of(expert)) ? -1 : expert);
  return ids;
}

void OverNodes::send(FrameUse const& use, LowLatencyDispatchArgs const& args) {
  static_cast<void>(engine_.masked());  // who has masked this rank since
  OfFrame& frame = of(use.frame);
  frame.rows = engine_.of(use).rows;
  frame.terms = terms_of(frame.rows, slots_.sizes());
  frame.reader.emplace(frame.terms, own_experts());
  frame.rows_leave = std::make_shared<Leaving>();
  SlotRoutes const& routes = engine_.of(use).routes;
  frame.streamed = is_too_much_for_caches(slots_, frame.rows, routes.total());
  std::vector<std::int32_t> const ids = ids_of(routes);
  auto tokens =
      scale_out::tokens_by_node(ConstTensorView(ids.data(), DType::i32, {routes.tokens(), slots_.sizes().top_k}),
                                slots_.node().topology(), slots_.experts());
  for (std::size_t way = 0; way < frame.to.size(); ++way) {
    ToNode& to = frame.to[way];
    to.tokens = std::move(tokens[static_cast<std::size_t>(rails_.ways()[way].node)]);
    to.awaited = false;
    to.open = !engine_.masked(rails_.ways()[way].rank);
    number_tokens(to.tokens, routes.tokens(), to.index);
    pack(use, way, args);
  }
  turn_or_fail();
}

// The tokens of a call for one node, on their way into chunks.
struct OverNodes::RowStream {
  scale_out::NodeExperts const& there;
  scale_out::DispatchTerms const& terms;
  scale_out::NodeCounts const& counts;
  scale_out::ChunkWriter writer;
  RowLoader loader;
};

void OverNodes::pack(FrameUse const& use, std::size_t way, LowLatencyDispatchArgs const& args) {
  scale_out::Way const& on = rails_.ways()[way];
  OfFrame& frame = of(use.frame);
  ToNode const& to = frame.to[way];
  Header header = header_of(Kind::rows, use);
  header.masked = masked_on(on.node);
  if (!to.open) return say_masked(on.neighbour, header);
  header.stream = to.tokens.counts.tokens;
  scale_out::NodeExperts const& there = experts_of(on.node);
  scale_out::DispatchStream const stream{
      .terms = frame.terms, .node = there, .tokens = to.tokens, .weights = args.topk_weights, .epoch = use.epoch};
  RowStream rows{there, frame.terms, to.tokens.counts, scale_out::ChunkWriter(stream),
                 RowLoader({args.x, args.scales, args.cast})};
  do {
    rails_.send(on.neighbour, frame.rows_leave,
                [&](std::span<std::byte> memory) { return write_rows(memory, header, rows); });
  } while (!rows.writer.done());
}

// A neighbour that is masked learns so with each call, as long as it takes part: both may end that between calls,
// and what it was sent before says nothing then.
void OverNodes::say_masked(int neighbour, Header header) {
  header.bytes = sizeof(Header);
  if (rails_.given_up(neighbour) || rails_.is_lost(neighbour)) return;
  rails_.send_instead(neighbour, [&](std::span<std::byte> memory) {
    scale_out::store(memory.data(), header);
    return sizeof(Header);
  });
}

// One chunk; `header` counts on.
std::size_t OverNodes::write_rows(std::span<std::byte> memory, Header& header, RowStream& rows) {
  bool const first = header.first == 0;
  std::size_t const counts = first ? scale_out::notify_bytes(rows.there) : 0;
  std::size_t const rows_at = scale_out::slot_rows_at(counts);
  if (first)
    scale_out::write_notify(memory.subspan(sizeof(Header), counts), header.epoch,
                            {.digest = header.digest, .counts = rows.counts});
  std::size_t const bytes = rows.writer.done() ? 0 : rows.writer.begin(memory.subspan(rows_at));
  header.count = 0;
  while (auto const row = rows.writer.next_row()) {
    LoadedRow const loaded = rows.loader.load(row->token);
    std::memcpy(row->x, loaded.x,
                rows.terms.row_bytes);  // the transport reads it next: it should stay in the cache
    if (loaded.scales != nullptr) std::memcpy(row->scales, loaded.scales, rows.terms.scale_bytes);
    ++header.count;
  }
  header.bytes = static_cast<std::uint32_t>(rows_at + bytes);
  scale_out::store(memory.data(), header);
  header.first += header.count;
  return header.bytes;
}

// Nobody makes progress between halves, so what has not left by itself leaves now. The neighbours take it in the
// same half.
void OverNodes::end_dispatch(FrameUse const& use) {
  OfFrame& frame = of(use.frame);
  await("low_latency/receive", [&] { return frame.rows_leave == nullptr ? -1 : holds(*frame.rows_leave); });
  let_the_last_leave();
}

// A neighbour that is masked or given up, and is in this call or comes to it late, waits for the word that says so,
// or for what it was sent before. That may not leave unless this rank polls. One that takes nothing at all costs
// this once.
void OverNodes::let_the_last_leave() {
  auto const without = [this](int neighbour) { return is_masked(neighbour); };
  Deadline const deadline(std::min(engine_.signals_.timeout() / 4, patience_for_the_last));
  Idling idling;
  for (int neighbour; (neighbour = rails_.last_under_way_to(without)) >= 0;) {
    engine_.signals_.check_usable();
    if (deadline.expired() || interrupted()) {
      rails_.stop_waiting_for(neighbour);
    } else {
      turn_or_fail();
      idling.rest();
    }
  }
}

int OverNodes::holds(Leaving& leaving) const {
  return rails_.holds(leaving, [this](int neighbour) { return is_masked(neighbour); });
}

void OverNodes::ask(FrameUse const& use, LowLatencyCombineArgs const& args) {
  OfFrame& frame = of(use.frame);
  frame.sums_leave = std::make_shared<Leaving>();
  for (std::size_t way = 0; way < frame.to.size(); ++way) {
    ToNode& to = frame.to[way];
    to.rows_here = 0;
    to.done_ns = 0;
    to.awaited = to.open && !engine_.masked(rails_.ways()[way].rank);
    if (to.awaited) send_weights(use, way, args);
  }
  turn_or_fail();
}

void OverNodes::send_weights(FrameUse const& use, std::size_t way, LowLatencyCombineArgs const& args) {
  scale_out::Way const& on = rails_.ways()[way];
  scale_out::NodeTokens const& tokens = of(use.frame).to[way].tokens;
  std::vector<float> weights;
  for (std::size_t i = 0; args.topk_weights.given() && i < tokens.size(); ++i)
    scale_out::for_each_bit(tokens.masks[i], [&](int slot) {
      weights.push_back(weight_at(args.topk_weights, tokens.tokens[i], slot));
    });
  Header header = header_of(Kind::asks, use);
  header.masked = masked_on(on.node);
  header.stream = static_cast<std::uint32_t>(weights.size());
  do {
    rails_.send(on.neighbour, of(use.frame).sums_leave, [&](std::span<std::byte> memory) {
      std::size_t const room = (memory.size() - sizeof(Header)) / sizeof(float);
      header.count = static_cast<std::uint32_t>(std::min<std::size_t>(room, weights.size() - header.first));
      header.bytes = static_cast<std::uint32_t>(sizeof(Header) + header.count * sizeof(float));
      scale_out::store(memory.data(), header);
      scale_out::store_all<float>(memory.data() + sizeof(Header),
                                  std::span(weights).subspan(header.first, header.count));
      header.first += header.count;
      return static_cast<std::size_t>(header.bytes);
    });
  } while (header.first < weights.size());
}

void OverNodes::take_sums(std::size_t way, Header const& header, Bytes chunk) {
  scale_out::Way const& on = rails_.ways()[way];
  LowLatency::Frame const& call = engine_.frames_[header.frame];
  ToNode& to = of(static_cast<int>(header.frame)).to[way];
  if (!to.awaited || header.epoch != call.epoch || header.combine + 1 != call.combines) return;
  auto const ranks = slots_.node().topology().ranks_of(on.node);
  for (std::size_t local = 0; local < ranks.size(); ++local)
    if ((header.masked & mask_of(static_cast<int>(local))) != 0 && !engine_.masked(ranks[local]))
      engine_.mask(ranks[local], true);
  to.awaited = !engine_.masked(on.rank);
  if (!to.awaited) return;
  if (header.digest != call.combine_digest)
    refuse_digest(on.rank, "low_latency/combine", "layout, dtype and coding");
  try {
    if (header.count > 0) copy_sums(to, header.epoch, call.outputs, on.rank, chunk.subspan(sizeof(Header)));
  } catch (InvalidArgument const& error) {
    throw SystemError(error.what(), {.rank = slots_.rank(), .peer = on.rank, .phase = "low_latency/combine"});
  }
  to.awaited = to.rows_here < to.tokens.size();
  if (!to.awaited) to.done_ns = monotonic_ns();
}

// Out of the ring, which is to be free for others until all that the sum needs is there.
void OverNodes::copy_sums(ToNode& to, std::uint64_t epoch, OutputShape const& outputs, int rank, Bytes chunk) {
  scale_out::CombineStream const stream{
      .row_bytes = outputs.row_bytes(), .tokens = static_cast<std::uint32_t>(to.tokens.size()), .epoch = epoch};
  scale_out::CombineReader reader(stream);
  reader.read(chunk, rank);
  require(reader.size() <= stream.tokens - to.rows_here, "rank {}: sums: expected {} more, seen {}", rank,
          stream.tokens - to.rows_here, reader.size());
  to.rows.resize(stream.tokens * stream.row_bytes);
  for (std::size_t i = 0; i < reader.size(); ++i)
    std::memcpy(to.rows.data() + (reader.first() + i) * stream.row_bytes, reader.row(i).x, stream.row_bytes);
  to.rows_here += static_cast<std::uint32_t>(reader.size());
}

// A call ends when this rank has its sums, has made those of the ranks that it serves, and all of that has left.
void OverNodes::end_combine(FrameUse const& use, LowLatencyCombineArgs const& args) {
  OfFrame& frame = of(use.frame);
  std::int64_t const begin = monotonic_ns();
  await("low_latency/combine", [&] {
    for (std::size_t way = 0; way < frame.to.size(); ++way)
      if (frame.to[way].awaited && !engine_.masked(rails_.ways()[way].rank)) return rails_.ways()[way].neighbour;
    for (std::size_t i = 0; i < frame.from.size(); ++i) {
      FromSource const& from = frame.from[i];
      bool const replied = from.replied && from.combine + 1 == static_cast<std::int64_t>(engine_.of(use).combines);
      if (!replied && !engine_.masked(rails_.served()[i].rank)) return rails_.served()[i].neighbour;
    }
    return holds(*frame.sums_leave);
  });
  let_the_last_leave();
  if (!args.wait_ns_per_source.given()) return;
  auto* const waited = static_cast<std::int64_t*>(args.wait_ns_per_source.data);
  for (std::size_t way = 0; way < frame.to.size(); ++way)
    for (int const rank : slots_.node().topology().ranks_of(rails_.ways()[way].node))
      waited[rank] += std::max<std::int64_t>(0, frame.to[way].done_ns - begin);
}

std::byte const* OverNodes::sum_of(FrameUse const& use, int node, std::int64_t token) const {
  auto const way = std::ranges::find(rails_.ways(), node, &scale_out::Way::node) - rails_.ways().begin();
  ToNode const& to = of(use.frame).to[static_cast<std::size_t>(way)];
  std::int32_t const index = to.index[static_cast<std::size_t>(token)];
  if (index < 0 || to.done_ns == 0) return nullptr;
  return to.rows.data() + static_cast<std::size_t>(index) * engine_.of(use).outputs.row_bytes();
}

}  // namespace switchyard::cpu
