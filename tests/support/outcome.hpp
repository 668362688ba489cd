// How a rank ended.
#pragma once

#include <exception>
#include <functional>
#include <string>

#include "switchyard/communicator.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {

struct Outcome {
  bool ok = true;
  int signal = 0;    // that ended the process
  std::string what;  // of the exception
};

// What a rank runs; a failure is an exception.
using RankBody = std::function<void(Communicator&)>;

// Runs `body` and says how it went.
template <typename Body>
Outcome capture(Body&& body) {
  try {
    body();
    return {};
  } catch (std::exception const& error) {
    return {false, 0, error.what()};
  } catch (...) {
    return {false, 0, "threw something that is no std::exception"};
  }
}

}  // namespace switchyard::test
