#include "cli/bench/result_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "base/check.hpp"
#include "base/unique_fd.hpp"

namespace switchyard::cli {

namespace {

std::string folder_of(std::string const& path) {
  std::string const folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

// What `path` names, not what a link leads to. Nothing when there is no such file.
std::optional<mode_t> mode_of(std::string const& path) {
  struct stat facts {};
  if (::lstat(path.c_str(), &facts) != 0) return std::nullopt;
  return facts.st_mode;
}

// Whether all of `text` is in the file; errno says why not.
bool write_all(UniqueFd file, std::string_view text) {
  while (!text.empty()) {
    ssize_t const written = ::write(file.get(), text.data(), text.size());
    if (written < 0 && errno != EINTR) return false;
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
  }
  return ::close(file.release()) == 0;  // some file systems say only here that there was no room
}

[[noreturn]] void fail(std::string const& path) {
  throw_errno(path + ": cannot be written");
}

void write_in_place(std::string const& path, std::string_view text) {
  UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file || !write_all(std::move(file), text)) fail(path);
}

}  // namespace

void require_writable(std::string const& path) {
  struct stat facts {};
  bool const exists = ::stat(path.c_str(), &facts) == 0;
  int error = 0;
  if (exists && S_ISDIR(facts.st_mode)) {
    error = EISDIR;
  } else if (::access(exists ? path.c_str() : folder_of(path).c_str(), exists ? W_OK : W_OK | X_OK) != 0) {
    error = errno;
  }
  require(error == 0, "{}: cannot be written: {}", path, text_of_errno(error));
}

void write_file(std::string const& path, std::string_view text) {
  auto const mode = mode_of(path);
  if (mode && !S_ISREG(*mode)) return write_in_place(path, text);
  std::string const beside = path + "." + std::to_string(::getpid()) + ".part";
  UniqueFd file(::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!file && mode) return write_in_place(path, text);
  if (!file) fail(path);
  if (mode) ::fchmod(file.get(), *mode & 07777U);
  if (write_all(std::move(file), text) && std::rename(beside.c_str(), path.c_str()) == 0) return;
  int const error = errno;
  ::unlink(beside.c_str());
  errno = error;
  fail(path);
}

}  // namespace switchyard::cli
