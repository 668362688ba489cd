// Trouble that is passed on rather than thrown: published to all ranks, which then throw it together.
#pragma once

#include <exception>
#include <new>
#include <optional>
#include <string>

#include "switchyard/error.hpp"

namespace switchyard {

struct Refusal {
  ErrorCode code = ErrorCode::invalid_argument;
  std::string text;
};

// Runs `step`; what it throws comes back as a value.
template <typename Step>
std::optional<Refusal> refusal_of(Step const& step) {
  try {
    step();
    return std::nullopt;
  } catch (Error const& error) {
    return Refusal{error.code(), error.what()};
  } catch (std::bad_alloc const&) {
    return Refusal{ErrorCode::out_of_memory, "no memory for the call's own tables"};
  } catch (std::exception const& error) {
    return Refusal{ErrorCode::system, error.what()};
  }
}

}  // namespace switchyard
