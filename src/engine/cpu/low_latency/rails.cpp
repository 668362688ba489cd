#include "engine/cpu/low_latency/rails.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.hpp"

namespace switchyard::cpu {

namespace {

// How long what a neighbour sent before it went may still come.
constexpr std::chrono::milliseconds grace_after_loss{100};

}  // namespace

Rails::Rails(std::shared_ptr<Job> job, NodeInJob const& node, scale_out::PortSizes const& sizes)
    : job_(std::move(job)),
      port_(job_, sizes),
      ways_(scale_out::ways_of(job_->rank(), node, port_)),
      served_(scale_out::served_by(job_->rank(), node, port_)),
      kept_(port_.neighbours().size()),
      chunks_(port_.neighbours().size()),
      last_rooms_(port_.neighbours().size()),
      word_rooms_(port_.neighbours().size()),
      words_(port_.neighbours().size()),
      blamed_(port_.neighbours().size(), -1),
      lost_until_(port_.neighbours().size()) {
  begin();
}

void Rails::begin() {
  port_.begin(generation_);
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour)
    last_rooms_[static_cast<std::size_t>(neighbour)] = port_.room_for(neighbour);
  keep_room_for_words();
}

// The credit for the last one brings it back: to the words before anything else, which there is more room for.
void Rails::keep_room_for_words() {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    auto& room = word_rooms_[static_cast<std::size_t>(neighbour)];
    if (!room) room = port_.room_for(neighbour);
  }
}

int Rails::last_under_way_to(std::function<bool(int)> const& without) const {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    Word const& word = words_[static_cast<std::size_t>(neighbour)];
    if (word.takes_nothing || port_.is_lost(neighbour) || (!given_up(neighbour) && !without(neighbour))) continue;
    bool const first_word_waits = word.first != nullptr && word.first->kept > 0;
    if (first_word_waits || port_.chunks_under_way_to(neighbour)) return neighbour;
  }
  return -1;
}

void Rails::turn(std::function<bool(int)> const& may_do_without) {
  if (failure_ && half_ >= failed_half_)
    throw_error(failure_->code(), failure_->what(),
                {.rank = failure_->rank(), .peer = failure_->peer(), .phase = failure_->phase()});
  poll(may_do_without);
  keep_room_for_words();
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    while (auto const chunk = port_.next_chunk(neighbour)) {
      if (given_up(neighbour)) {
        port_.give_back(*chunk);
      } else {
        chunks_[static_cast<std::size_t>(neighbour)].push_back(*chunk);
      }
    }
    post_kept(neighbour);
  }
  while (auto const notice = port_.heard()) take_notice(*notice);
}

void Rails::poll(std::function<bool(int)> const& may_do_without) {
  try {
    port_.poll();
  } catch (PeerLost const& lost) {
    int const neighbour = number_of(lost.peer());
    if (neighbour < 0 || !may_do_without(neighbour)) throw;
    give_up(neighbour);
  }
}

void Rails::post_kept(int neighbour) {
  auto& kept = kept_[static_cast<std::size_t>(neighbour)];
  while (!kept.empty()) {
    Kept const& first = kept.front();
    auto room = first.is_word ? room_for_word(neighbour) : std::nullopt;
    if (!room) room = port_.room_for(neighbour);
    if (!room) return;
    std::memcpy(room->memory.data(), first.bytes.data(), first.bytes.size());
    port_.send(*room, first.bytes.size());
    first.leaving->rooms.push_back(*room);
    --first.leaving->kept;
    kept.pop_front();
  }
}

void Rails::forget_kept(int neighbour) {
  auto& kept = kept_[static_cast<std::size_t>(neighbour)];
  for (Kept const& each : kept) --each.leaving->kept;
  kept.clear();
}

void Rails::forget_behind_first_word(int neighbour) {
  auto& kept = kept_[static_cast<std::size_t>(neighbour)];
  auto const word = std::ranges::find(kept, true, &Kept::is_word);
  std::optional<Kept> first;
  if (word != kept.end()) {
    first = *word;
    ++first->leaving->kept;
  }
  forget_kept(neighbour);
  if (first) kept.push_back(std::move(*first));
}

void Rails::take_notice(scale_out::Notice const& notice) {
  if (notice.from >= 0 && given_up(notice.from)) return;  // its node costs its tokens, and nothing else
  if (notice.kind == scale_out::Notice::Kind::failed) {
    others_know_ = true;
    ErrorFacts const facts{.rank = notice.rank, .peer = notice.peer, .phase = notice.phase};
    if (!failure_) failure_.emplace(notice.code, notice.text, facts);
    failed_half_ = failed_half_ == 0 ? notice.epoch : std::min(failed_half_, notice.epoch);
    return;
  }
  if (notice.from >= 0) blamed_[static_cast<std::size_t>(notice.from)] = notice.rank;
}

bool Rails::is_lost(int neighbour) {
  if (given_up(neighbour)) return true;
  if (!port_.is_lost(neighbour)) return false;
  auto& until = lost_until_[static_cast<std::size_t>(neighbour)];
  if (!until) until.emplace(grace_after_loss);
  return until->expired();
}

void Rails::give_up(int neighbour) {
  if (given_up(neighbour)) return;
  port_.give_up(neighbour);
  forget_kept(neighbour);
  static_cast<void>(take(neighbour, [](auto const&) { return true; }));
}

void Rails::say_held_up(int culprit) noexcept {
  port_.say({.kind = scale_out::Notice::Kind::held_up, .epoch = half_, .rank = culprit});
}

void Rails::say_failed(Error const& error, std::uint64_t halves_ahead) noexcept {
  if (others_know_) return;
  others_know_ = true;
  port_.say_failed(error, half_ + halves_ahead);
}

void Rails::drain() {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    forget_kept(neighbour);
    chunks_[static_cast<std::size_t>(neighbour)].clear();
    blamed_[static_cast<std::size_t>(neighbour)] = -1;
    lost_until_[static_cast<std::size_t>(neighbour)].reset();
    words_[static_cast<std::size_t>(neighbour)] = {};
    word_rooms_[static_cast<std::size_t>(neighbour)].reset();
  }
  port_.drain(generation_);
  ++generation_;
  begin();
  others_know_ = false;
  failure_.reset();
  half_ = 0;
  failed_half_ = 0;
}

}  // namespace switchyard::cpu
