// Runs the command as a user does, from a shell.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace switchyard::cli {

// A benchmark that is over at once.
inline constexpr char const* small =
    " --engine cpu --ranks 2 --tokens 16 --hidden 128 --iterations 2 --warmup 0 --no-check ";
inline std::string const bench = std::string("$S bench") + small;

struct Outcome {
  int status = 0;
  std::string out;
  std::string err;
};

// A folder that goes away with this object, and a shell in it. (Files whose names start with a dot are ours.)
class Shell {
 public:
  Shell() {
    std::string name = (std::filesystem::temp_directory_path() / "switchyard-cli-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    folder_ = name;
  }
  ~Shell() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  Shell(Shell const&) = delete;
  Shell& operator=(Shell const&) = delete;

  // In `line`, $S is the command. What `line` does not redirect itself comes back.
  Outcome run(std::string const& line) {
    std::string const script = "cd '" + folder_.string() + "' && S='" + SWITCHYARD_CLI "' && { " + line + "\n}";
    write(".script", script);
    std::string const start = "sh '" + path(".script") + "' > '" + path(".out") + "' 2> '" + path(".err") + "'";
    int const status = std::system(start.c_str());
    return {.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1, .out = read(".out"), .err = read(".err")};
  }

  [[nodiscard]] std::string path(std::string const& name) const { return (folder_ / name).string(); }
  [[nodiscard]] std::string read(std::string const& name) const {
    std::ifstream file(folder_ / name);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  void write(std::string const& name, std::string const& text) const { std::ofstream(folder_ / name) << text; }
  // How many files there are.
  [[nodiscard]] int files() const {
    int count = 0;
    for (auto const& entry : std::filesystem::directory_iterator(folder_))
      if (!entry.path().filename().string().starts_with(".")) ++count;
    return count;
  }

 private:
  std::filesystem::path folder_;
};

}  // namespace switchyard::cli
