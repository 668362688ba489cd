"""Two nodes that are namespaces of this machine, with a cable between them.

Each node has a network and a host name of its own. The namespaces have no names: they last as long as a process is in
them, so nothing is left of them when this program ends, however it ends. It takes root, `ip` and `tc` (iproute2)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

INTERFACE = "eth0"
NETWORK = "10.197.0"
BURST = "1mb"  # of the shaped cable; smaller ones do not reach the rate
# What sends at its own pace would be slowed down twice on a shaped cable; reno is allowed in every namespace.
CONGESTION = "reno"
TOOLS = ("ip", "tc", "nsenter", "unshare", "setpriv")


def why_not() -> str:
    """Why there can be none here, and what to do; empty when there can."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        return f"network namespaces take {', '.join(missing)}: install iproute2 and util-linux"
    if os.geteuid() != 0:
        return "network namespaces take root: run it with sudo"
    probe = subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        return (f"this kernel or container refuses network namespaces ({probe.stderr.strip()}): in a container give it "
                "CAP_SYS_ADMIN and CAP_NET_ADMIN")
    return ""


def ends_with_us(command: Sequence[object]) -> list[str]:
    """The command, which gets SIGTERM from the kernel when the process that started it ends."""
    return ["setpriv", "--pdeathsig", "TERM", *map(str, command)]


class TwoNodes:
    """A context: the namespaces are there within it."""

    def __init__(self, rate: str | None = None) -> None:
        """`rate`: of the cable, both ways, as tc writes it (4gbit); none: what the machine gives."""
        self.rate = rate
        self._holders: list[subprocess.Popen[str]] = []

    size = 2

    def __enter__(self) -> TwoNodes:
        try:
            for node in range(self.size):
                self._holders.append(self._hold(node))
            first, second = (str(holder.pid) for holder in self._holders)
            must(["ip", "link", "add", INTERFACE, "netns", first, "type", "veth", "peer", INTERFACE, "netns", second])
            for node in range(self.size):
                self._set_up(node)
            for node in range(self.size):
                self._await_link(node)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def address(self, node: int) -> str:
        return f"{NETWORK}.{node + 1}"

    def pid(self, node: int) -> int:
        """A process that is in the node as long as the node lasts."""
        return self._holders[node].pid

    def inside(self, node: int, command: Iterable[object]) -> list[str]:
        """The command that runs `command` in a node."""
        pid = self.pid(node)
        return ends_with_us(["nsenter", f"--net=/proc/{pid}/ns/net", f"--uts=/proc/{pid}/ns/uts", *command])

    def congestion(self) -> str:
        seen = self._run(0, ["cat", "/proc/sys/net/ipv4/tcp_congestion_control"])
        return seen.stdout.strip()

    def close(self) -> None:
        """Ends what is still at work in the nodes, and them."""
        for holder in self._holders:
            with contextlib.suppress(OSError):
                end_processes_of(os.readlink(f"/proc/{holder.pid}/ns/net"))
            holder.kill()
            holder.communicate()
        self._holders = []

    def _hold(self, node: int) -> subprocess.Popen[str]:
        # Its input ends with this process, and with that `cat`.
        script = f"hostname node{node} && echo ready && exec cat"
        command = ["unshare", "--net", "--uts", "sh", "-c", script]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if holder.stdout is None or holder.stdout.readline() != "ready\n":
            holder.kill()
            holder.communicate()
            sys.exit("network namespaces: unshare failed")
        return holder

    def _set_up(self, node: int) -> None:
        self._run(node, ["ip", "link", "set", "lo", "up"])
        self._run(node, ["ip", "addr", "add", f"{self.address(node)}/24", "dev", INTERFACE])
        self._run(node, ["ip", "link", "set", INTERFACE, "up"])
        allowed = f"echo {CONGESTION} >/proc/sys/net/ipv4/tcp_congestion_control"
        self._run(node, ["sh", "-c", allowed])
        if self.rate:
            shape = ["tbf", "rate", self.rate, "burst", BURST, "latency", "100ms"]
            self._run(node, ["tc", "qdisc", "add", "dev", INTERFACE, "root", *shape])

    def _await_link(self, node: int) -> None:
        """The kernel takes up to a second to see that both ends are up; libfabric passes over a link until then."""
        end = time.monotonic() + 10
        while "state UP" not in self._run(node, ["ip", "-o", "link", "show", INTERFACE]).stdout:
            if time.monotonic() > end:
                sys.exit(f"network namespaces: {INTERFACE} of node {node} does not come up")
            time.sleep(0.02)

    def _run(self, node: int, command: list[str]) -> subprocess.CompletedProcess[str]:
        return must(self.inside(node, command))


def must(command: list[str]) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}\nfailed ({result.returncode}): {result.stderr.strip()}")
    return result


def processes_of(namespace: str) -> list[int]:
    """Processes in a network namespace, given as /proc shows it."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "ns/net") == namespace:
                found.append(int(entry.name))
    return found


def end_processes_of(namespace: str) -> None:
    """Nobody but what this program started is in its namespaces. Those who die may have children who just begin."""
    if namespace == os.readlink("/proc/self/ns/net"):
        return
    for _ in range(20):
        left = processes_of(namespace)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            return
        time.sleep(0.05)
