"""Ctrl-C, exit and forks in low-latency mode. Each test has processes of its own."""

import textwrap

import pytest
from jobs import Job, check, check_that_an_interrupt_ends_the_process, idle, interrupt_the_wait, interrupted, learned

setup = """
low = switchyard.LowLatencyBuffer(communicator, max_tokens=8, hidden=16, num_experts=2, top_k=1, timeout=timeout)
half = x.astype(numpy.float16)
"""
dispatched = setup + "done = low.dispatch(half, ids)\n"


@pytest.mark.parametrize(
    "call",
    [
        "low.dispatch(half, ids)",
        "received, hook = low.send_dispatch(half, ids); hook()",
        "low.combine(done.x, done.handle)",
        "sums, hook = low.send_combine(done.x, done.handle); hook()",
    ],
)
def test_keyboard_interrupt_ends_a_wait_and_then_the_process_ends_as_usual(call):
    job = Job(dispatched + interrupted.format(call=call), dispatched + idle, timeout=600)
    check_that_an_interrupt_ends_the_process(job)


def test_an_interrupted_hook_fails_on_all_ranks_and_reset_mends_it():
    again = """
low.reset()
low.dispatch(half, ids)
say("again")
"""
    sent = "received, hook = low.send_dispatch(half, ids)\n"
    first = sent + interrupted.format(call="hook()") + "communicator.barrier()" + again
    second = learned.format(call="low.dispatch(half, ids)")
    job = Job(setup + first, setup + second + again)
    interrupt_the_wait(job)
    check(job.end(), "again", "learned again")


def test_exit_with_a_hook_that_was_not_called():
    both = 'received, hook = low.send_dispatch(half, ids); say("sent")'
    check(Job(setup + both, setup + both).end(), "sent", "sent")


def test_exit_with_a_hook_that_was_not_called_takes_nothing_from_the_peer():
    sent = """
received, hook = low.send_dispatch(half, ids)
sums, sums_hook = low.send_combine(done.x, done.handle)
"""
    gets = """
        time.sleep(0.3)  # the peer may be gone by now
        hook()
        sums_hook()
        assert received.counts.sum() == 8 and (sums == half).all()
        say("received")
    """
    check(Job(dispatched + sent, dispatched + sent + textwrap.dedent(gets)).end(), "", "received")


def test_a_fork_refuses_and_leaves_the_parent_alone():
    body = """
        received, hook = low.send_dispatch(half, ids)
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends a child that hangs
            for call in (
                hook, lambda: low.dispatch(half, ids), lambda: low.send_dispatch(half, ids),
                lambda: low.combine(done.x, done.handle), lambda: low.outputs(done.handle, "float16"),
                low.masked, lambda: low.mask(1 - rank), low.reset, low.synchronize, lambda: low.num_bytes,
            ):
                try:
                    call()
                except switchyard.Unusable as error:
                    assert "cannot be used in its fork" in str(error), error
                else:
                    os._exit(3)
            assert done.counts.sum() == 8
            low.destroy()
            del low, received, hook, done
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        hook()
        assert received.counts.sum() == 8
        assert (low.combine(done.x, done.handle) == half).all()
        say("parent")
    """
    both = dispatched + textwrap.dedent(body)
    check(Job(both, both).end(), "parent", "parent")
