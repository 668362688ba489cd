// A progress bar on standard error, when that is a terminal.
#pragma once

#include <string>

namespace switchyard::cli {

class Progress {
 public:
  // `wanted`: false on all ranks but one.
  Progress(bool wanted, int steps);
  ~Progress();
  Progress(Progress const&) = delete;
  Progress& operator=(Progress const&) = delete;

  // One more step is done; `what` comes next.
  void step(std::string const& what);

 private:
  void clear() const;

  bool shown_;
  int steps_;
  int done_ = 0;
};

}  // namespace switchyard::cli
