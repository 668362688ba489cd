"""Groups of other libraries whose ranks do not all come: a deadline of ours, and Ctrl-C, end the wait."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest
import switchyard
from ranks import free_port

header = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
import torch.distributed as dist
import switchyard, deep_ep
rank, port = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
print("waiting", flush=True)
"""


def group_of_two(body):
    """Rank 0 runs the body; rank 1 does not come."""
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, "-c", header + textwrap.dedent(script), str(rank), port],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, script in enumerate((body, "time.sleep(600)"))
    ]


def end(processes):
    """(exit status, stdout, stderr) of rank 0."""
    first, second = processes
    try:
        out, errors = first.communicate(timeout=60)
        return first.returncode, out.split(), errors
    finally:
        for process in processes:
            process.kill()
        second.communicate()


def test_a_rank_that_does_not_come():
    body = """
        try:
            switchyard.Communicator.from_torch(timeout=0.5)
        except switchyard.Timeout as error:
            assert (error.rank, error.phase) == (0, "rendezvous")
            print("late", error, flush=True)
    """
    status, words, errors = end(group_of_two(body))
    assert status == 0, errors
    assert " ".join(words) == "waiting late rank 0: rendezvous: not all ranks of the group came in time"


@pytest.mark.parametrize("call", ["switchyard.Communicator.from_torch()", "deep_ep.Buffer(dist.group.WORLD)"])
def test_keyboard_interrupt(call):
    body = f"""
        try:
            {call}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    processes = group_of_two(body)
    assert processes[0].stdout.readline().strip() == "waiting"
    time.sleep(0.3)
    processes[0].send_signal(signal.SIGINT)
    status, words, errors = end(processes)
    assert (status, words) == (0, ["interrupted"]), errors


class Absent:
    """What from_mpi needs of mpi4py, with a peer that never comes."""

    class Request:
        def Test(self):
            return False

    def Get_rank(self):
        return 1

    def Get_size(self):
        return 2

    def Ibarrier(self):
        return Absent.Request()

    def allgather(self, mine):
        raise AssertionError("would wait without a deadline")


def test_a_rank_of_mpi_that_does_not_come():
    with pytest.raises(switchyard.Timeout, match="rank 1: rendezvous: not all ranks of the group came"):
        switchyard.Communicator.from_mpi(Absent(), timeout=0.1)


def test_what_a_group_raises_is_raised():
    class Broken(Absent):
        def Ibarrier(self):
            raise ConnectionError("the network is down")

    with pytest.raises(ConnectionError, match="the network is down"):
        switchyard.Communicator.from_mpi(Broken())
    with pytest.raises(switchyard.InvalidArgument, match="timeout: expected 0"):
        switchyard.Communicator.from_mpi(Broken(), timeout=-1)
