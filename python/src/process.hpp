// Objects that belong to one process, since a fork does not copy their threads.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "errors.hpp"

namespace switchyard::python {

// The number of forks between the first process and this one. It differs between a child and its parent, and
// reading it takes no system call.
unsigned forks() noexcept;
// The error for an object of another process. `name` is the object's class, `owner` is "process" and its number.
Unusable forked(char const* name, std::string const& owner);

// A forked child never frees the value: its destructor would change memory that the child shares with the parent.
template <typename T>
std::shared_ptr<T> of_this_process(T&& value) {
  return {new T(std::forward<T>(value)), [born = forks()](T* mine) {
            if (forks() == born) delete mine;
          }};
}

// Owns a T until destroy(). A forked child never destroys the T: the threads of the T do not exist there, and
// shutting down its sockets would end the parent's connections.
template <typename T>
class Owned {
 public:
  Owned(char const* name, T&& value) : name_(name), value_(std::make_shared<T>(std::move(value))) {}
  Owned(Owned&&) noexcept = default;
  Owned& operator=(Owned&&) = delete;
  ~Owned() { destroy(); }

  // A call holds the pointer, so that a destroy() by another thread does not free the value during the call.
  [[nodiscard]] std::shared_ptr<T> get() const {
    if (forks() != forks_) throw forked(name_, "process " + std::to_string(owner_));
    if (!value_) throw Unusable(std::string(name_) + ": it was destroyed, make a new one");
    return value_;
  }
  [[nodiscard]] bool usable() const noexcept { return value_ && forks() == forks_; }
  // May wait for queued calls; then it releases the GIL.
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
