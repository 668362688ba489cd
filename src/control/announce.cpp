#include "control/announce.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/check.hpp"
#include "control/peer_waits.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

namespace {

constexpr std::array<std::string_view, num_terms> term_names{"call",
                                                             "x: dtype",
                                                             "x: dimension 1",
                                                             "routing",
                                                             "topk_idx: dimension 1",
                                                             "topk_idx: dtype",
                                                             "topk_weights",
                                                             "row_weights",
                                                             "cast_to_fp8",
                                                             "scales",
                                                             "layout",
                                                             "expert_alignment",
                                                             "num_worst_tokens",
                                                             "handle: number of its dispatch",
                                                             "range of a dispatch in rounds"};

std::string pick(std::initializer_list<std::string_view> names, std::int64_t value) {
  auto const index = static_cast<std::size_t>(value);
  return index < names.size() ? std::string(names.begin()[index]) : std::to_string(value);
}

// A term's value in the caller's words.
std::string show(std::size_t term, std::int64_t value) {
  switch (static_cast<Term>(term)) {
    case Term::operation: return pick({"none", "dispatch", "combine"}, value);
    case Term::routing: return pick({"none", "topk_idx", "token_in_rank", "handle"}, value);
    case Term::layout: return pick({"flat", "expanded"}, value);
    case Term::topk_weights:
      return value > 1 ? fmt::format("{} columns, of all ranks", value - 1) : pick({"none", "a tensor"}, value);
    case Term::row_weights: return pick({"none", "a tensor"}, value);
    case Term::scales: {
      TokenScales const scales = scales_of_term(value);
      return scales.bytes == 0 ? "none"
                               : fmt::format("{} bytes of {} a token", scales.bytes, name_of(scales.dtype));
    }
    case Term::cast: return pick({"false", "true"}, value);
    case Term::dtype:
    case Term::topk_dtype: return value < 0 ? "none" : std::string(name_of(static_cast<DType>(value)));
    default: return std::to_string(value);
  }
}

void announce_to(Link const& link, Announcement const& mine, int peer) {
  Announce& announce = link.control.announce(peer, link.rank, mine.epoch);
  announce.status = mine.refusal ? static_cast<std::uint32_t>(mine.refusal->code) : 0;
  announce.trouble = mine.trouble ? 1 : 0;
  std::memcpy(announce.terms, mine.terms.values.data(), sizeof announce.terms);
  announce.x_offset = mine.x_offset;
  announce.weights_offset = mine.weights_offset;
  announce.row_weights_offset = mine.row_weights_offset;
  announce.block_offset = mine.block_offset;
  announce.block_rows = mine.block_rows;
  put_text(announce.text, sizeof announce.text, mine.refusal ? mine.refusal->text : "");
  link.signals.publish(peer, announce.epoch, mine.epoch);  // pairs with the wait in open_call()
}

// What a rank of the job announced, here or by letter.
struct Heard {
  std::uint32_t status;
  std::int64_t const* terms;
  char const* text;
};

Heard heard_from(Link const& link, int rank, std::uint64_t epoch) {
  auto const [local, index] = link.job.served().place_of(rank);
  Announce const& announce = link.control.announce(link.rank, local, epoch);
  if (index == 0) return {announce.status, announce.terms, announce.text};
  // Without trouble it asks what the rank that serves it asks.
  if (announce.trouble == 0) return {0, announce.terms, ""};
  PassedOn const& passed_on = link.control.passed_on(local, index, epoch);
  return {passed_on.status, passed_on.terms, passed_on.text};
}

// What is said of ranks of other nodes is alike, too, unless there is trouble.
bool all_ask_the_same(Link const& link, std::uint64_t epoch) {
  Announce const& first = link.control.announce(link.rank, 0, epoch);
  for (int rank = 0; rank < link.num_ranks; ++rank) {
    Announce const& announce = link.control.announce(link.rank, rank, epoch);
    if (announce.status != 0 || announce.trouble != 0 || !std::ranges::equal(announce.terms, first.terms))
      return false;
  }
  return true;
}

// The first refusal by rank. Every rank finds the same one.
std::optional<std::pair<int, Refusal>> find_refusal(Link const& link, std::uint64_t epoch) {
  for (int rank = 0; rank < link.job.num_ranks(); ++rank) {
    Heard const heard = heard_from(link, rank, epoch);
    if (heard.status == 0) continue;
    Refusal refusal{static_cast<ErrorCode>(heard.status),
                    fmt::format("rank {}: {}", rank, get_text(heard.text, text_bytes))};
    return std::pair{rank, std::move(refusal)};
  }
  return std::nullopt;
}

// The first term, by rank, that differs from rank 0's.
std::optional<std::pair<int, Refusal>> find_difference(Link const& link, std::uint64_t epoch) {
  Heard const first = heard_from(link, 0, epoch);
  for (int rank = 1; rank < link.job.num_ranks(); ++rank) {
    Heard const other = heard_from(link, rank, epoch);
    for (std::size_t term = 0; term < num_terms; ++term) {
      if (other.terms[term] == first.terms[term]) continue;
      return std::pair{rank,
                       Refusal{ErrorCode::invalid_argument,
                               fmt::format("rank {}: {}: expected {} as on rank 0, seen {}", rank, term_names[term],
                                           show(term, first.terms[term]), show(term, other.terms[term]))}};
    }
  }
  return std::nullopt;
}

}  // namespace

void open_call(Link const& link, Announcement const& announcement) {
  for (int peer = 0; peer < link.num_ranks; ++peer) announce_to(link, announcement, peer);
  await_peers(link, announcement.epoch, announcement.phase,
              [&](int peer) { return &link.control.announce(link.rank, peer, announcement.epoch).epoch; });
  if (all_ask_the_same(link, announcement.epoch)) return;
  auto trouble = find_refusal(link, announcement.epoch);
  if (!trouble) trouble = find_difference(link, announcement.epoch);
  if (!trouble) return;
  throw_error(trouble->second.code, trouble->second.text, {.rank = trouble->first, .phase = announcement.phase});
}

}  // namespace switchyard
