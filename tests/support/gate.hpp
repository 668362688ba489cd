// Holds tasks of a stream back until it is opened, or goes: a failed check must not leave a stream stuck.
#pragma once

#include <functional>
#include <future>
#include <utility>

namespace switchyard::test {

class Gate {
 public:
  Gate() : opened_(promise_.get_future()) {}
  Gate(Gate const&) = delete;
  Gate& operator=(Gate const&) = delete;
  ~Gate() { open(); }

  void open() {
    if (!std::exchange(is_open_, true)) promise_.set_value();
  }
  // A task that ends once the gate is open; it may outlive the gate.
  [[nodiscard]] std::function<void()> wait_until_open() const {
    return [opened = opened_] { opened.wait(); };
  }

 private:
  std::promise<void> promise_;
  std::shared_future<void> opened_;
  bool is_open_ = false;
};

}  // namespace switchyard::test
