// Steps of a collective in which any rank may fail: all ranks then throw the same.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "job/job.hpp"
#include "job/message.hpp"

namespace switchyard::scale_out {

// What each rank says, by rank.
struct Cards {
  std::vector<std::vector<std::byte>> bytes;  // which the readers read
  std::vector<MessageReader> readers;
};

// Collective over the job. Every rank runs the step, which writes what the others are to know; if it throws on any
// of them, all throw the failure of the first such rank.
Cards exchange_cards(Job& job, std::function<void(MessageWriter&)> const& step);

}  // namespace switchyard::scale_out
