// Where results of benchmarks go, and what is seen of them until they are there.
#pragma once

#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace switchyard::cli {

// The stream for people; standard output is left to JSON when the path of that is "-".
std::FILE* text_output(std::string const& json_path);
// To the file, or to standard output; nothing for an empty path.
void write_json(std::string const& json_path, nlohmann::ordered_json const& results);

// A progress bar on standard error, when that is a terminal.
class Progress {
 public:
  // `wanted`: false on all ranks but one.
  Progress(bool wanted, int steps);
  ~Progress();
  Progress(Progress const&) = delete;
  Progress& operator=(Progress const&) = delete;

  // One more step is done; `what` comes next.
  void step(std::string const& what);
  // Leaves the line to others.
  void clear() const;

 private:
  bool shown_;
  int steps_;
  int done_ = 0;
};

}  // namespace switchyard::cli
