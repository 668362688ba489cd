#include "control/announce.hpp"

#include <fmt/core.h>

#include <cstring>
#include <string_view>

#include "base/check.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

namespace {

constexpr std::array<std::string_view, num_facts> fact_names{"call",
                                                             "x: dtype",
                                                             "x: dimension 1",
                                                             "routing",
                                                             "topk_idx: dimension 1",
                                                             "topk_idx: dtype",
                                                             "topk_weights",
                                                             "row_weights",
                                                             "cast_to_fp8",
                                                             "bytes of scales a token",
                                                             "layout",
                                                             "expert_alignment",
                                                             "num_worst_tokens",
                                                             "handle: number of its dispatch",
                                                             "range of a dispatch in rounds"};

std::string pick(std::initializer_list<std::string_view> names, std::int64_t value) {
  auto const index = static_cast<std::size_t>(value);
  return index < names.size() ? std::string(names.begin()[index]) : std::to_string(value);
}

// A fact's value as the caller knows it.
std::string show(std::size_t name, std::int64_t value) {
  switch (static_cast<Fact>(name)) {
    case Fact::operation: return pick({"none", "dispatch", "combine"}, value);
    case Fact::routing: return pick({"none", "topk_idx", "token_in_rank", "handle"}, value);
    case Fact::layout: return pick({"flat", "expanded"}, value);
    case Fact::topk_weights:
    case Fact::row_weights: return pick({"none", "a tensor"}, value);
    case Fact::cast: return pick({"false", "true"}, value);
    case Fact::dtype:
    case Fact::topk_dtype: return value < 0 ? "none" : std::string(name_of(static_cast<DType>(value)));
    default: return std::to_string(value);
  }
}

void tell(Link const& link, Opening const& opening, int peer) {
  Announce& announce = link.control.announce(peer, link.rank);
  announce.status = opening.refusal ? static_cast<std::uint32_t>(opening.refusal->code) : 0;
  std::memcpy(announce.facts, opening.facts.data(), sizeof announce.facts);
  announce.x_offset = opening.x_offset;
  announce.weights_offset = opening.weights_offset;
  announce.row_weights_offset = opening.row_weights_offset;
  put_text(announce.text, sizeof announce.text, opening.refusal ? opening.refusal->text : "");
  link.signals.publish(peer, announce.epoch, opening.epoch);  // pairs with the wait in open_call()
}

// The first refusal, by rank; every rank finds the same one.
std::optional<std::pair<int, Refusal>> find_refusal(Link const& link) {
  for (int rank = 0; rank < link.num_ranks; ++rank) {
    Announce const& announce = link.control.announce(link.rank, rank);
    if (announce.status == 0) continue;
    Refusal refusal{static_cast<ErrorCode>(announce.status),
                    fmt::format("rank {}: {}", rank, get_text(announce.text, sizeof announce.text))};
    return std::pair{rank, std::move(refusal)};
  }
  return std::nullopt;
}

// The first fact, by rank, that differs from rank 0's.
std::optional<std::pair<int, Refusal>> find_difference(Link const& link) {
  Announce const& first = link.control.announce(link.rank, 0);
  for (int rank = 1; rank < link.num_ranks; ++rank) {
    Announce const& other = link.control.announce(link.rank, rank);
    for (std::size_t name = 0; name < num_facts; ++name) {
      if (other.facts[name] == first.facts[name]) continue;
      return std::pair{rank,
                       Refusal{ErrorCode::invalid_argument,
                               fmt::format("rank {}: {}: expected {} as on rank 0, seen {}", rank, fact_names[name],
                                           show(name, first.facts[name]), show(name, other.facts[name]))}};
    }
  }
  return std::nullopt;
}

}  // namespace

void open_call(Link const& link, Opening const& opening) {
  for (int peer = 0; peer < link.num_ranks; ++peer) tell(link, opening, peer);
  Deadline const deadline = link.signals.deadline();
  for (int peer = 0; peer < link.num_ranks; ++peer) {
    link.signals.wait(link.control.announce(link.rank, peer).epoch, {peer, opening.epoch, opening.phase}, deadline);
  }
  auto trouble = find_refusal(link);
  if (!trouble) trouble = find_difference(link);
  if (!trouble) return;
  // Nobody may open the next call (and overwrite its announce) before everybody has read this one.
  close_call(link, opening.epoch, opening.phase);
  throw_error(trouble->second.code, trouble->second.text, {.rank = trouble->first, .phase = opening.phase});
}

void close_call(Link const& link, std::uint64_t epoch, char const* phase) {
  for (int peer = 0; peer < link.num_ranks; ++peer) {
    link.signals.publish(peer, link.control.done(peer, link.rank).epoch, epoch);  // pairs with the wait below
  }
  Deadline const deadline = link.signals.deadline();
  for (int peer = 0; peer < link.num_ranks; ++peer) {
    link.signals.wait(link.control.done(link.rank, peer).epoch, {peer, epoch, phase}, deadline);
  }
}

}  // namespace switchyard
