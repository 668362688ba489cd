"""Ranks that run scripts in processes of their own, for tests of how processes end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

from ranks import free_port

header = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
import numpy
import switchyard
address, rank = sys.argv[1], int(sys.argv[2])
timeout = float(sys.argv[3])
communicator = switchyard.Communicator.connect(
    rank=rank, size=2, address=address, token="t", timeout=max(20.0, timeout)
)
buffer = switchyard.Buffer(communicator, max_tokens=8, hidden=16, num_experts=2, top_k=1, timeout=timeout)
x = numpy.ones((8, 16), numpy.float32)
ids = numpy.arange(8).reshape(8, 1) % 2
def say(text):
    print(text, flush=True)
"""


class Job:
    """A job that runs a script on each rank, after the header."""

    def __init__(self, *scripts: str, timeout: float = 20.0, header: str = header) -> None:
        address = f"127.0.0.1:{free_port()}"
        environment = os.environ | {"SWITCHYARD_ENGINE": "cpu", "OMP_NUM_THREADS": "1"}
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", header + textwrap.dedent(script), address, str(rank), str(timeout)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for rank, script in enumerate(scripts)
        ]

    def read(self, rank: int) -> str:
        return self.processes[rank].stdout.readline().strip()

    def interrupt(self, rank: int) -> None:
        self.processes[rank].send_signal(signal.SIGINT)

    def end_of(self, rank: int, seconds: float = 60) -> tuple[int, str, str]:
        """Returns exit status, stdout and stderr."""
        out, err = self.processes[rank].communicate(timeout=seconds)
        return self.processes[rank].returncode, out, err

    def end(self) -> list[tuple[int, str, str]]:
        try:
            return [self.end_of(rank) for rank in range(len(self.processes))]
        finally:
            self.kill()

    def kill(self) -> None:
        for process in self.processes:
            with process:  # closes its pipes
                process.kill()


def check(results, *expected):
    for (status, out, err), wanted in zip(results, expected):
        assert status == 0, (status, out, err)
        assert out.split() == wanted.split(), (out, err)
        assert err == "", err


interrupted = """
try:
    say("waiting")
    {call}
    say("missed")
except KeyboardInterrupt:
    say("interrupted")
"""
# For the peer of a rank whose call is interrupted.
learned = """
communicator.barrier()
try:
    {call}
except switchyard.SystemCallError as error:
    assert "interrupted by its caller" in str(error) and error.rank == 0
    say("learned")
"""
leave = "os._exit(0)"  # after `interrupted`: ends without the waits of a normal exit
idle = "time.sleep(600)"  # killed by the test


def interrupt_the_wait(job: Job) -> None:
    """Interrupts the wait of rank 0."""
    assert job.read(0) == "waiting"
    time.sleep(0.3)
    job.interrupt(0)
    assert job.read(0) == "interrupted"


def check_that_an_interrupt_ends_the_wait(job: Job) -> None:
    try:
        interrupt_the_wait(job)
    finally:
        job.kill()


def check_that_an_interrupt_ends_the_process(job: Job) -> None:
    """The process ends as usual, while the peer lives and does nothing."""
    try:
        interrupt_the_wait(job)
        check([job.end_of(0, seconds=20)], "")  # sooner than by any default deadline
    finally:
        job.kill()
