"""destroy, exit with calls under way, forks, Ctrl-C, dead peers. Each test has processes of its own."""

import threading
import time

import pytest
import switchyard
import torch
from jobs import (
    Job,
    check,
    check_that_an_interrupt_ends_the_process,
    check_that_an_interrupt_ends_the_wait,
    idle,
    interrupt_the_wait,
    interrupted,
    learned,
    leave,
)
from ranks import as_threads


def test_exit_with_work_under_way():
    queue = """
        handles = [buffer.dispatch_async(x, ids) for _ in range(20)]
        say("queued")
    """
    check(Job(queue, queue).end(), "queued", "queued")


def test_exit_while_the_peer_has_not_come_yet():
    early = 'pending = buffer.dispatch_async(x, ids); say("out")'
    late = 'time.sleep(0.5); buffer.dispatch(x, ids); say("in")'
    check(Job(early, late).end(), "out", "in")


def test_exit_with_results_and_pending_calls_in_globals():
    body = """
        kept = buffer.dispatch(x, ids)
        tensor = kept.x
        pending = buffer.combine_async(tensor, kept.handle)
        numbers = buffer.allocate("float32", (4,))
    """
    check(Job(body, body).end(), "", "")


def test_the_peer_leaves_during_a_wait():
    wait = """
        try:
            buffer.dispatch(x, ids)
        except switchyard.PeerLost as error:
            assert isinstance(error, ConnectionError) and error.peer == 1, error
            say("lost")
        try:
            buffer.dispatch(x, ids)
        except switchyard.PeerLost:
            say("lost")
    """
    check(Job(wait, "time.sleep(0.3); os._exit(0)").end(), "lost lost", "")


def test_timeout_and_reset():
    late = """
        try:
            buffer.dispatch(x, ids)
        except switchyard.Timeout as error:
            assert isinstance(error, TimeoutError) and error.peer == 1, error
            say("late")
        buffer.reset()
        assert (buffer.combine((r := buffer.dispatch(x, ids)).x, r.handle).x == x).all()
        say("again")
    """
    other = """
        time.sleep(1.5)
        try:
            buffer.dispatch(x, ids)
        except switchyard.Error:
            say("learned")
        buffer.reset()
        assert (buffer.combine((r := buffer.dispatch(x, ids)).x, r.handle).x == x).all()
        say("again")
    """
    check(Job(late, other, timeout=0.5).end(), "late again", "learned again")


@pytest.mark.parametrize(
    "call",
    [
        "buffer.dispatch(x, ids)",
        "communicator.barrier()",
        "communicator.all_gather(b'1')",
        "switchyard.Buffer(communicator, max_tokens=1, hidden=1, num_experts=2, top_k=1)",
    ],
)
def test_keyboard_interrupt_ends_a_wait_and_then_the_process_ends_as_usual(call):
    job = Job(interrupted.format(call=call), idle, timeout=600)  # no deadline can be what ends it
    check_that_an_interrupt_ends_the_process(job)


@pytest.mark.parametrize(
    "call",
    [
        "buffer.dispatch_async(x, ids).get()",
        "pending = buffer.dispatch_async(x, ids); pending.event.wait()",
        "pending = buffer.dispatch_async(x, ids); buffer.combine(x, pending.handle)",
        "pending = buffer.dispatch_async(x, ids); buffer.dispatch('no tensor', ids)",
        "pending = buffer.dispatch_async(x, ids); buffer.combine('no tensor', pending.handle)",
        "pending = buffer.dispatch_async(x, ids); pending.handle.num_recv_rows",
        "pending = buffer.dispatch_async(x, ids); buffer.synchronize()",
        "buffer.reset()",
    ],
)
def test_keyboard_interrupt_ends_a_wait(call):
    """These calls go on, and a normal exit would wait for them."""
    job = Job(interrupted.format(call=call) + leave, idle, timeout=600)
    check_that_an_interrupt_ends_the_wait(job)


def test_exit_after_an_interrupted_wait_ends_by_the_deadline_of_the_call():
    job = Job(interrupted.format(call="buffer.dispatch_async(x, ids).get()"), idle, timeout=2)
    check_that_an_interrupt_ends_the_process(job)


def test_an_interrupted_dispatch_fails_on_all_ranks_and_reset_mends_it():
    again = """
buffer.reset()
buffer.dispatch(x, ids)
say("again")
"""
    first = interrupted.format(call="buffer.dispatch(x, ids)") + "communicator.barrier()" + again
    job = Job(first, learned.format(call="buffer.dispatch(x, ids)") + again)
    interrupt_the_wait(job)
    check(job.end(), "again", "learned again")


def test_signal_handlers_that_do_not_raise_do_no_harm():
    first = """
        signal.signal(signal.SIGINT, lambda *_: say("handled"))
        say("waiting")
        buffer.dispatch(x, ids)
        say("done")
    """
    job = Job(first, "time.sleep(1.5); buffer.dispatch(x, ids)")
    assert job.read(0) == "waiting"
    time.sleep(0.3)
    job.interrupt(0)
    check(job.end(), "handled done", "")


def test_a_fork_refuses_and_leaves_the_parent_alone():
    body = """
        pending = buffer.dispatch_async(x, ids); result = pending.get()
        child = os.fork()
        if child == 0:
            for call in (lambda: buffer.dispatch(x, ids), communicator.barrier, lambda: buffer.heap_bytes_used):
                try:
                    call()
                except switchyard.Unusable as error:
                    assert "cannot be used in its fork" in str(error), error
                else:
                    os._exit(3)
            assert result.x.sum() > 0
            buffer.destroy()
            del buffer, communicator, pending, result
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        buffer.dispatch(x, ids)
        say("parent")
    """
    check(Job(body, body).end(), "parent", "parent")


def test_a_fork_refuses_what_waits_for_a_call_under_way():
    first = """
        pending = buffer.dispatch_async(x, ids)
        event, handle = pending.event, pending.handle
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends a child that hangs
            for call in (
                pending.get, pending.early, pending.event.wait, event.wait, lambda: event.done,
                lambda: handle.num_tokens, lambda: handle.source_tokens, lambda: buffer.dispatch(x, ids),
                lambda: buffer.combine(x, handle),
            ):
                try:
                    call()
                except switchyard.Unusable as error:
                    assert "make the communicator after the fork" in str(error), error
                else:
                    os._exit(3)
            assert switchyard.Event().done and switchyard.Event().wait()
            buffer.destroy()
            del buffer, pending, event, handle
            sys.exit(0)
        status = os.waitpid(child, 0)[1]
        assert status == 0, status
        communicator.barrier()
        assert pending.get().x.sum() > 0 and event.done and handle.num_tokens == 8
        say("parent")
    """
    check(Job(first, "communicator.barrier(); buffer.dispatch(x, ids); say('in')").end(), "parent", "in")


@pytest.mark.parametrize(
    "call", ["buffer.dispatch(x, ids, after=pending.event)", "buffer.combine(x, done.handle, after=pending.event)"]
)
def test_keyboard_interrupt_ends_a_wait_for_an_event_of_another_buffer(call):
    both = """
other = switchyard.Buffer(communicator, max_tokens=8, hidden=16, num_experts=2, top_k=1)
done = buffer.dispatch(x, ids)
"""
    first = both + "pending = other.dispatch_async(x, ids)\n" + interrupted.format(call=call) + leave
    job = Job(first, both + idle, timeout=600)
    check_that_an_interrupt_ends_the_wait(job)


def test_two_threads_destroy_at_once():
    def body(communicator):
        buffer = switchyard.Buffer(communicator, max_tokens=4, hidden=8, num_experts=2, top_k=1)
        if communicator.rank == 1:
            communicator.barrier()
        pending = buffer.dispatch_async(torch.ones(4, 8), torch.zeros(4, 1, dtype=torch.int64))
        threads = [threading.Thread(target=buffer.destroy) for _ in range(2)]
        for thread in threads:
            thread.start()
        if communicator.rank == 0:
            communicator.barrier()  # the threads wait for the peer's call until now
        for thread in threads:
            thread.join()
        assert pending.event.done and pending.get().x.shape[1] == 8

    as_threads(2, body)


def test_finalizers_of_kept_inputs_may_make_calls():
    class Caller:
        def __init__(self, tensor, call):
            self.tensor, self.call = tensor, call

        def __dlpack__(self, **options):
            return self.tensor.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.tensor.__dlpack_device__()

        def __del__(self):
            self.call()

    def body(communicator):
        with switchyard.Buffer(communicator, max_tokens=4, hidden=8, num_experts=2, top_k=1) as buffer:
            x, ids = torch.ones(4, 8), torch.zeros(4, 1, dtype=torch.int64)
            called = []
            for _ in range(3):
                # numbers of calls grow during one pruning
                buffer.dispatch_async(Caller(x, lambda: called.append(buffer.dispatch_async(x, ids))), ids).get()
            buffer.dispatch(x, ids)
            assert len(called) == 3 and all(each.get().x.shape == (4, 8) for each in called)

    as_threads(1, body)


def test_use_after_destroy():
    def body(communicator):
        buffer = switchyard.Buffer(communicator, max_tokens=4, hidden=8, num_experts=2, top_k=1)
        x, ids = torch.ones(4, 8), torch.zeros(4, 1, dtype=torch.int64)
        result = buffer.dispatch(x, ids)
        handle, rows = result.handle, result.x
        buffer.destroy()
        buffer.destroy()
        for call in (
            lambda: buffer.dispatch(x, ids),
            lambda: buffer.dispatch_async(x, ids),
            lambda: buffer.combine(rows, handle),
            lambda: buffer.get_layout(ids),
            lambda: buffer.allocate("float32", (1,)),
            buffer.synchronize,
            buffer.reset,
            lambda: buffer.engine,
        ):
            with pytest.raises(switchyard.Unusable, match="Buffer: it was destroyed, make a new one"):
                call()
        assert rows.sum() >= 0 and handle.num_tokens == 4, "what was handed out stays valid"
        communicator.destroy()
        with pytest.raises(switchyard.Unusable, match="Communicator: it was destroyed"):
            communicator.barrier()

    as_threads(2, body)


def test_the_gil_is_free_during_a_wait():
    """Ranks are threads: if a waiting one held the GIL, the other could never come."""

    def body(communicator):
        with switchyard.Buffer(communicator, max_tokens=4, hidden=8, num_experts=2, top_k=1) as buffer:
            for turn in range(6):
                if turn % 2 == communicator.rank:
                    time.sleep(0.02)
                buffer.dispatch(torch.ones(4, 8), torch.zeros(4, 1, dtype=torch.int64))

    as_threads(2, body)
