"""What a low-latency caller of deep_ep keeps: results, handles, or parts of them. Each function checks itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import switchyard
import torch
from decoder import Decoder
from devices import close, here, same
from low_latency_reference import sums

layers = 8


def kept_handles(group: Any) -> None:
    """vLLM keeps a handle for each layer until it replaces it in the next step."""
    decoder = Decoder.of(group)
    kept: list[Any] = [None] * layers
    for step in range(3 * layers):
        layer = step % layers
        kept[layer] = decoder.step(step, hooks=layer % 2 == 0, zero_copy=layer % 3 == 0)
    for handle in kept:
        check_that_it_is_over(decoder, handle)
    what_was_read_holds_its_slots(decoder)
    decoder.buffer.destroy()


def check_that_it_is_over(decoder: Decoder, handle: Any) -> None:
    """A handle whose dispatch was combined and whose result is gone has what was read from it, and nothing else."""
    job, mine = decoder.job, decoder.inputs()
    assert handle[2:] == (job.max_tokens, job.hidden, job.experts) and len(handle) == 5
    rows = here(torch.zeros(job.experts // job.ranks, job.max_tokens * job.ranks, job.hidden).bfloat16())
    for given in (handle, tuple(handle)):
        with pytest.raises(switchyard.InvalidArgument, match="keep recv_x to combine it again"):
            decoder.combine(mine, (None, None, given), rows)
        with pytest.raises(switchyard.InvalidArgument, match="keep recv_x to combine it again"):
            decoder.buffer.get_next_low_latency_combine_buffer(given)
    sent = decoder.dispatch(mine)
    decoder.combine(mine, sent, sent[0])
    unread = sent[2]
    del sent
    for item in range(2):
        with pytest.raises(switchyard.Unusable, match="are read while recv_x lives, or before the combine"):
            unread[item]


def what_was_read_holds_its_slots(decoder: Decoder) -> None:
    """Results that are kept hold their slots, and keep their contents; so do handles that were not combined."""
    holders: list[Any] = [lambda sent: sent[0], lambda sent: sent[0].view(-1)[:5], lambda sent: sent[2]]
    for what in (*holders, lambda sent: tuple(sent[2])):
        held, before, rows = [], [], set()
        for step in range(4):
            mine = decoder.inputs(step)
            sent = decoder.dispatch(mine, hooks=True)
            sent[4]()
            rows.add(sent[0].data_ptr())
            held.append(what(sent))
            before.append(held[-1].clone() if isinstance(held[-1], torch.Tensor) else None)
            if before[-1] is not None:
                decoder.combine(mine, sent, sent[0])
        sent = None
        more = dispatch_if_it_grows(decoder, 4)
        assert more is None or more[0].data_ptr() not in rows
        for seen, wanted in zip(held, before):
            assert wanted is None or torch.equal(seen, wanted)
        held.clear()
        del seen, more


def dispatch_if_it_grows(decoder: Decoder, step: int) -> Any:
    """Dispatches when 4 results are held. Returns None if memory of this kind does not grow, on all ranks alike."""
    try:
        return decoder.dispatch(decoder.inputs(step))
    except switchyard.InvalidArgument as error:
        assert "low_latency_dispatch: expected the result of 4 dispatches ago to be released" in str(error)
        assert "free earlier results: recv_x" in str(error)
        return None


def kept_rows(group: Any) -> None:
    """recv_x of every call lives on, with its scales, on some ranks or on all; each stays what it was."""
    decoder = Decoder.of(group)
    kept: list[Any] = []
    for step in range(4):
        kept.append(decoder.dispatch(decoder.inputs(step))[0])
    if dispatch_if_it_grows(decoder, 4) is None:
        decoder.buffer.destroy()
        return
    kept.clear()
    for keeps in (decoder.rank == 0, decoder.rank != 0, True):
        for step in range(14):
            mine, hooks = decoder.inputs(step), step % 2 == 0
            use_fp8 = step % 3 == 0
            sent = decoder.dispatch(mine, hooks, use_fp8=use_fp8)
            if hooks:
                sent[4]()
            if not use_fp8:
                decoder.check_received(sent, step)
                decoder.check_sums(decoder.combine(mine, sent, hooks=False)[0], step)
            if keeps:
                tensors = sent[0] if use_fp8 else (sent[0],)
                kept.append((tensors, [bits(each).clone() for each in tensors], sent[2]))
            assert all(stays(tensors, before) for tensors, before, _ in kept)
        if keeps:
            refuses_an_old_handle(decoder, kept[1][2])
        kept.clear()
    decoder.buffer.destroy()


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


def stays(tensors: Any, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(bits(now), then) for now, then in zip(tensors, before))


def refuses_an_old_handle(decoder: Decoder, handle: Any) -> None:
    """Its rows live, but its slots have had other dispatches since."""
    rows = here(torch.zeros(decoder.job.experts // decoder.job.ranks, decoder.job.max_tokens * decoder.job.ranks,
                            decoder.job.hidden).bfloat16())
    with pytest.raises(switchyard.InvalidArgument, match="handle: expected one of the latest 4 dispatches, seen that"):
        decoder.combine(decoder.inputs(1), (None, None, handle), rows)


def kept_small_results(group: Any) -> None:
    """recv_count and what was read from the handle may be kept: they have memory of their own."""
    decoder = Decoder.of(group)
    kept = []
    for step in range(10):
        mine, hooks = decoder.inputs(step), step % 2 == 0
        sent = decoder.dispatch(mine, hooks)
        early = list(sent[2]) if step % 4 == 0 else None
        if hooks:
            sent[4]()
        small = [sent[1], *(early or list(sent[2]))[:2]]
        decoder.check_received(sent, step)
        assert torch.equal(small[2], sent[2][1])
        kept.append((small, [each.clone() for each in small]))
        decoder.combine(mine, sent, sent[0])
    for small, before in kept:
        assert all(torch.equal(*pair) for pair in zip(small, before))
    decoder.buffer.destroy()


def combined_again(group: Any) -> None:
    """A dispatch is combined several times while recv_x lives, with other rows, in place and from elsewhere, as a whole
    and in halves, and others come in between."""
    decoder = Decoder.of(group)
    for step in range(4):
        mine = decoder.inputs(step)
        sent = decoder.dispatch(mine)
        made = decoder.outputs(sent)
        for again in range(7):
            factor = 2.0 ** (again % 3)
            zero_copy, hooks, logfmt = again % 3 != 1, again % 2 == 0, again == 4
            if zero_copy and not logfmt:
                decoder.buffer.get_next_low_latency_combine_buffer(sent[2])[:, :, :] = made * factor
            options = {"use_logfmt": logfmt, "zero_copy": zero_copy and not logfmt}
            back, _, hook = decoder.combine(mine, sent, made * factor, hooks, **options)
            if hooks:
                hook()
            expected = sums(decoder.job, decoder.rank, step=step) * factor
            close(back, expected, 0.1) if logfmt else same(back, expected)
            if again == 2:
                decoder.step(step + 20)  # a dispatch and a combine of other rows
    with pytest.raises(switchyard.InvalidArgument, match="receive half is done"):
        hook = decoder.combine(mine, sent, made, hooks=True)[2]
        decoder.combine(mine, sent, made)
    hook()
    decoder.buffer.destroy()


def rebuilt_handles(group: Any) -> None:
    """A plain tuple of a handle's items is as good as the handle, also if it is all that lives of it."""
    decoder = Decoder.of(group)
    mapped: Any = [
        tuple,
        list,
        lambda handle: (*handle,),
        lambda handle: type(handle)(each for each in handle),  # as FSDP maps over inputs and outputs of a module
        lambda handle: tuple(each.detach() if isinstance(each, torch.Tensor) else each for each in handle),
        lambda handle: (handle[0].view(-1), *handle[1:]),
        copy.copy,
    ]
    for step, rebuild in enumerate(mapped):
        mine, hooks = decoder.inputs(step), step % 2 == 1
        recv_x, counts, handle, event, hook = decoder.dispatch(mine, hooks)
        handle = rebuild(handle)
        assert type(handle) in (tuple, list)
        if hooks:
            hook()
        source = handle[0].view(-1, decoder.job.max_tokens * group.size())
        decoder.check_received((recv_x, counts, (source, handle[1])), step)
        made = decoder.outputs((recv_x,))
        del recv_x
        zero_copy = step % 3 == 0
        if zero_copy:
            decoder.buffer.get_next_low_latency_combine_buffer(handle)[:, :, :] = made
        back = decoder.combine(mine, (None, None, handle), made, zero_copy=zero_copy)[0]
        decoder.check_sums(back, step)
    for unknown in ((), (1, 2), (torch.zeros(3),), tuple(each.clone() for each in handle[:2])):
        with pytest.raises(switchyard.InvalidArgument, match=f"handle: .*seen a tuple of {len(unknown)} others"):
            decoder.combine(mine, (None, None, unknown), made)
    for wrong in (None, 3, handle[0]):
        with pytest.raises(TypeError, match="handle: expected what low_latency_dispatch returned"):
            decoder.combine(mine, (None, None, wrong), made)
    decoder.buffer.destroy()
