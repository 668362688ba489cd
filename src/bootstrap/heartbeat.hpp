// Heartbeats of a TCP connection. The kernels exchange them, so a machine answers them whatever its processes do:
// who waits for a peer can tell a process that is stopped from a machine that is off, or cut off.
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace switchyard {

// One each second on a connection that is idle. A machine that answers none for two minutes is given up, and the
// connection ends; a cut that is shorter heals. Best effort: without them the other end's silence ends nothing.
void start_heartbeats(int socket) noexcept;

// Since when the other end's machine has sent nothing at all; nothing for a socket that is not TCP's.
[[nodiscard]] std::optional<std::chrono::milliseconds> silence_of(int socket) noexcept;

// The same, for the end of an error's text; empty where nothing is known.
[[nodiscard]] std::string silence_text(std::optional<std::chrono::milliseconds> silence);

}  // namespace switchyard
