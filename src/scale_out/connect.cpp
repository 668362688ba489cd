// How a port is made: what its ranks agree on, their endpoints, and who is at them.
#include <algorithm>

#include "base/check.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "job/failure.hpp"
#include "scale_out/cards.hpp"
#include "scale_out/rest.hpp"
#include "scale_out/state.hpp"

namespace switchyard::scale_out {

namespace {

constexpr std::uint32_t version = 2;
// How long own proofs are waited with until they have left, once the neighbours' are there. A transport that learns
// it from the neighbour may say it late; the neighbour has polled, or its own proof would not be there.
constexpr std::chrono::milliseconds patience_for_own_proofs{5000};

// Collective: whether all ranks want the same port, and which back end carries it.
BackEnd agree_on_port(Job& job, PortSizes const& sizes) {
  auto cards = exchange_cards(job, [&](MessageWriter& message) {
    static_cast<void>(PortLayout(sizes, 1));  // refuses what no rank can have
    message.put(version);
    message.put(static_cast<std::uint64_t>(sizes.letter_bytes));
    message.put(static_cast<std::uint64_t>(sizes.slot_bytes));
    message.put(static_cast<std::int32_t>(sizes.slots));
    message.put(static_cast<std::int32_t>(sizes.send_slots));
    put_back_end(message);
  });
  std::optional<PortSizes> first;
  for (std::size_t rank = 0; rank < cards.readers.size(); ++rank) {
    MessageReader& reader = cards.readers[rank];
    require(reader.get<std::uint32_t>() == version, "rank {} runs another version of Switchyard", rank);
    PortSizes seen;
    seen.letter_bytes = reader.get<std::uint64_t>();
    seen.slot_bytes = reader.get<std::uint64_t>();
    seen.slots = reader.get<std::int32_t>();
    seen.send_slots = reader.get<std::int32_t>();
    if (!first) first = seen;
    auto const same = [&](char const* name, auto expected, auto value) {
      require(expected == value, "PortSizes::{}: expected {} on all ranks, as on rank 0, seen {} on rank {}", name,
              expected, value, rank);
    };
    same("letter_bytes", first->letter_bytes, seen.letter_bytes);
    same("slot_bytes", first->slot_bytes, seen.slot_bytes);
    same("slots", first->slots, seen.slots);
    same("send_slots", first->send_slots, seen.send_slots);
  }
  return agreed_back_end(cards.readers);
}

Job& job_of_nodes(std::shared_ptr<Job> const& job) {
  require(job != nullptr, "job: expected one, seen none");
  if (job->topology().num_nodes() == 1) throw Unsupported("Port: expected a job of several nodes, seen one of one");
  return *job;
}

}  // namespace

Port::State::State(std::shared_ptr<Job> job, PortSizes const& sizes, PinMemory const& pin)
    : job_(std::move(job)), sizes_(sizes) {
  BackEnd const back_end = agree_on_port(job_of_nodes(job_), sizes);
  neighbours_ = neighbours_of(job_->topology(), job_->rank());
  for (Neighbour const& neighbour : neighbours_) members_.push_back(neighbour.member);
  forget_calls(0);
  connect(back_end, pin);
}

// When it returns, every rank has heard from its neighbours through each endpoint, and may be written to.
void Port::State::connect(BackEnd const& back_end, PinMemory const& pin) {
  auto cards = exchange_cards(*job_, [&](MessageWriter& message) {
    layout_.emplace(sizes_, num_neighbours());
    for (Neighbour const& neighbour : neighbours_) layouts_there_.emplace_back(sizes_, neighbour.neighbours_there);
    memory_.emplace(layout_->bytes());
    if (pin) pinned_ = pin(memory_->bytes());
    wires_ = std::make_unique<Wires>(back_end, endpoint_terms(), neighbours_, memory_->bytes());
    std::size_t const largest = std::max(sizes_.letter_bytes, sizes_.slots > 0 ? sizes_.slot_bytes : 0);
    if (largest > wires_->max_write_bytes()) {
      throw Unsupported(fmt::format("PortSizes: expected writes of at most {} bytes, as the transport has, seen {}",
                                    wires_->max_write_bytes(), largest));
    }
    proofs_.emplace(*job_, neighbours_);
    proofs_->put_card(message);
    wires_->put_card(message);
  });
  exchange_cards(*job_, [&](MessageWriter& /*nothing*/) {
    proofs_->read_cards(cards.readers);
    wires_->connect(cards.readers);
  });
  exchange_cards(*job_, [&](MessageWriter& /*nothing*/) { show_who_is_there(); });
}

// Everything that may be under way at once.
EndpointTerms Port::State::endpoint_terms() const {
  auto const neighbours = static_cast<std::size_t>(num_neighbours());
  auto const slots = static_cast<std::size_t>(sizes_.slots);
  std::size_t const lasting = neighbours * (slots + std::size_t{2} * notice_places + 1);  // and a farewell
  std::size_t const small = lasting + 2 * neighbours;                                     // and letters
  Topology const& topology = job_->topology();
  return {.rank = job_->rank(),
          .local_rank = topology.local_rank_of(job_->rank()),
          .address = job_->address(),
          .max_writes = small + static_cast<std::size_t>(sizes_.send_slots),
          .lasting_writes = lasting,
          .max_arrivals = small + neighbours * slots,
          .memory_bytes = layout_->bytes()};
}

// Nobody polls for this rank afterwards, so its own proofs must have left: also when it has seen something wrong,
// or its other neighbours would take it for silent.
void Port::State::show_who_is_there() {
  send_proofs();
  auto const failure = failure_of([&] { await_proofs(); });
  let_proofs_leave();
  if (failure) throw *failure;
}

void Port::State::await_proofs() {
  // Others wait for this rank in the agreement that follows: for longer, so that they hear whom it missed.
  Deadline const deadline(job_->timeout() / 2);
  Wait const wait{.phase = "connect",
                  .expected = "a first write from its data endpoints in time, seen none",
                  .hint =
                      "; is there a firewall between the nodes, or another address to use (SWITCHYARD_ADDRESS, "
                      "docs/cluster.md)?"};
  Rest rest;
  while (auto const neighbour = first_unproven()) {
    if (poll()) continue;
    check_wait(wait, *neighbour, deadline);
    rest.turn();
  }
}

void Port::State::let_proofs_leave() {
  Deadline const patience(std::min(job_->timeout() / 4, patience_for_own_proofs));
  Rest rest;
  while (proofs_unsent_to() && !patience.expired() && !interrupted()) {
    if (!take_events()) rest.turn();
  }
  if (auto const neighbour = proofs_unsent_to())
    logger().debug("port: rank {}: a proof to {} may not have left", job_->rank(),
                   members_[checked(*neighbour)].text());
}

void Port::State::send_proofs() {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    for (int end = 0; end < wires_->num_ends(); ++end) {
      ProofPlace const at = proof_place_of(end);
      Place const from = layout_->notice_out(neighbour, at.notice);
      std::ranges::copy(proofs_->own(neighbour, end), memory(from).subspan(at.offset).begin());
      int const number = neighbours_[checked(neighbour)].number_there;
      wires_->post({.channel = Channel::proof,
                    .neighbour = neighbour,
                    .slot = end,
                    .bytes = sizeof(Mac),
                    .from = from.offset + at.offset,
                    .into = there(neighbour).notice_in(number, at.notice).offset + at.offset});
    }
  }
}

std::optional<int> Port::State::first_unproven() const {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour)
    if (!proofs_->complete(neighbour, wires_->num_ends())) return neighbour;
  return std::nullopt;
}

std::optional<int> Port::State::proofs_unsent_to() const {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour)
    if (wires_->open(neighbour, Channel::proof) > 0 && !is_gone(neighbour)) return neighbour;
  return std::nullopt;
}

}  // namespace switchyard::scale_out
