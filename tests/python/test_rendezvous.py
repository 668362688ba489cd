"""Groups of other libraries whose ranks come late or not at all: our deadline and Ctrl-C end the wait."""

import time

import pytest
import switchyard
from jobs import Job, check, check_that_an_interrupt_ends_the_process, idle, interrupted
from ranks import with_comm

header = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
import torch.distributed as dist
import switchyard, deep_ep
address, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"tcp://{{address}}", rank=rank, world_size={size})
def say(text):
    print(text, flush=True)
"""


def group(*scripts):
    """A process of a group of gloo for each."""
    return Job(*scripts, header=header.format(size=len(scripts)))


def test_a_rank_that_does_not_come():
    body = """
        try:
            switchyard.Communicator.from_torch(timeout=0.5)
        except switchyard.Timeout as error:
            assert (error.rank, error.phase) == (0, "rendezvous")
            assert str(error) == "rank 0: rendezvous: not all ranks of the group came in time"
            say("late")
    """
    job = group(body, idle)
    try:
        check([job.end_of(0)], "late")
    finally:
        job.kill()


def test_a_late_rank_costs_later_waits_nothing():
    """Later waits have the whole timeout, not the rest that the rendezvous leaves."""
    first = """
        communicator = switchyard.Communicator.from_torch(timeout=20)
        communicator.barrier()
        say("met")
    """
    second = """
        time.sleep(17)
        communicator = switchyard.Communicator.from_torch(timeout=20)
        time.sleep(6)
        communicator.barrier()
        say("met")
    """
    check(group(first, second).end(), "met", "met")


calls = ["switchyard.Communicator.from_torch()", "deep_ep.Buffer(dist.group.WORLD)"]


@pytest.mark.parametrize("call", calls)
def test_keyboard_interrupt(call):
    check_that_an_interrupt_ends_the_process(group(interrupted.format(call=call), idle))


def test_keyboard_interrupt_of_all_that_wait():
    """Ctrl-C in a terminal ends ranks at the same time, so connections of the group break."""
    wait = interrupted.format(call="switchyard.Communicator.from_torch()")
    job = group(wait, wait, idle)
    try:
        assert [job.read(rank) for rank in (0, 1)] == ["waiting"] * 2
        time.sleep(0.3)
        for rank in (0, 1):
            job.interrupt(rank)
        check([job.end_of(rank) for rank in (0, 1)], "interrupted", "interrupted")
    finally:
        job.kill()


class Absent:
    """The methods of mpi4py that from_mpi needs, with a peer that never comes."""

    class Request:
        def Test(self):
            return False

    def Get_rank(self):
        return 1

    def Get_size(self):
        return 2

    def Iallgather(self, mine, theirs):
        assert len(theirs) == 2 * len(mine)
        return Absent.Request()


def test_a_rank_of_mpi_that_does_not_come():
    with pytest.raises(switchyard.Timeout, match="rank 1: rendezvous: not all ranks of the group came"):
        switchyard.Communicator.from_mpi(Absent(), timeout=0.1)


def test_what_a_group_raises_is_raised():
    class Broken(Absent):
        def Iallgather(self, mine, theirs):
            raise ConnectionError("the network is down")

    with pytest.raises(ConnectionError, match="the network is down"):
        switchyard.Communicator.from_mpi(Broken())
    with pytest.raises(switchyard.InvalidArgument, match="timeout: expected 0"):
        switchyard.Communicator.from_mpi(Broken(), timeout=-1)


def test_without_iallgather():
    def body(comm):
        with switchyard.Communicator.from_mpi(comm) as communicator:
            return communicator.all_gather(b"%d" % comm.Get_rank())

    assert with_comm(2, body) == [[b"0", b"1"]] * 2


def test_the_token_of_the_environment_is_not_sent(monkeypatch):
    secret = "a secret of the environment"
    monkeypatch.setenv("SWITCHYARD_TOKEN", secret)

    class Recorder:
        def __init__(self, comm):
            self.comm = comm
            self.Get_rank, self.Get_size = comm.Get_rank, comm.Get_size
            self.cards = []

        def allgather(self, mine):
            self.cards = self.comm.allgather(mine)
            return self.cards

    def body(comm):
        recorder = Recorder(comm)
        with switchyard.Communicator.from_mpi(recorder) as communicator:
            communicator.barrier()
        return recorder.cards

    for cards in with_comm(2, body):
        assert len(cards) == 2
        assert secret not in repr(cards)


def test_what_was_sent_is_not_enough(monkeypatch):
    """Who has seen the card of rank 0, but does not have SWITCHYARD_TOKEN."""
    monkeypatch.setenv("SWITCHYARD_TOKEN", "a secret of the environment")
    server, trouble = switchyard._rendezvous._serve(switchyard._rendezvous._job_token("sent"))
    assert trouble is None
    for token in ("sent", "", "another secret:sent"):
        with pytest.raises(switchyard.InvalidArgument, match="refused this rank: wrong token"):
            switchyard.Communicator.connect(rank=0, size=2, address=server.address, token=token, serve=False)


def test_ranks_of_several_machines_need_a_token():
    with pytest.raises(switchyard.InvalidArgument, match="^token: expected a secret .* is on another machine"):
        switchyard.Communicator.connect(rank=1, size=2, address="203.0.113.1:29400")


@pytest.mark.parametrize("address", ["::1:29400", "[::1:29400", "nowhere", "[localhost]:1"])
def test_bad_addresses(address):
    with pytest.raises(switchyard.InvalidArgument, match="^address: expected host:port"):
        switchyard.Communicator.connect(rank=0, size=2, address=address)
