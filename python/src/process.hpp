// Objects that belong to one process: they have threads and sockets, which a fork does not copy.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "errors.hpp"

namespace switchyard::python {

// How often this process, and those before it, were forked: tells a child from its parent without a system call.
unsigned forks() noexcept;
// Why what `name` calls is of no use here; owner: "process" and its number.
Unusable forked(char const* name, std::string const& owner);

// In a forked child what it holds is left alone: freeing it there would reach the parent, by shared memory.
template <typename T>
std::shared_ptr<T> of_this_process(T&& value) {
  return {new T(std::forward<T>(value)), [born = forks()](T* mine) {
            if (forks() == born) delete mine;
          }};
}

// Owns a T until destroy(). In a forked child the T is left alone: its threads do not exist there, and closing its
// sockets would end the parent's.
template <typename T>
class Owned {
 public:
  Owned(char const* name, T&& value) : name_(name), value_(std::make_shared<T>(std::move(value))) {}
  Owned(Owned&&) noexcept = default;
  Owned& operator=(Owned&&) = delete;
  ~Owned() { destroy(); }

  // To be held during a call, so that a destroy() by another thread does not pull it away.
  [[nodiscard]] std::shared_ptr<T> get() const {
    if (forks() != forks_) throw forked(name_, "process " + std::to_string(owner_));
    if (!value_) throw Unusable(std::string(name_) + ": it was destroyed, make a new one");
    return value_;
  }
  [[nodiscard]] bool usable() const noexcept { return value_ && forks() == forks_; }
  // May wait for queued work, without the GIL.
  void destroy() {
    std::shared_ptr<T> value = std::move(value_);
    if (!value) return;
    if (forks() != forks_) {
      new std::shared_ptr<T>(std::move(value));  // never freed
      return;
    }
    nanobind::gil_scoped_release const released;
    value.reset();
  }

 private:
  char const* name_;
  unsigned forks_ = forks();
  pid_t owner_ = ::getpid();
  std::shared_ptr<T> value_;
};

}  // namespace switchyard::python
