"""Arrays of JAX in and out, ranks as threads; values against the same references as PyTorch's."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import switchyard
import torch
from low_latency_reference import Job, check_received, outputs_of, sums
from ranks import as_threads

ranks, hidden, experts, top_k = 2, 256, 6, 3
lengths = (9, 5)
dtypes = {torch.bfloat16: jnp.bfloat16, torch.float16: jnp.float16, torch.float32: jnp.float32}


def to_jax(tensor):
    """Goes through NumPy. JAX has no int64 by default."""
    if tensor.dtype == torch.bfloat16:
        return jnp.asarray(tensor.float().numpy()).astype(jnp.bfloat16)
    return jnp.asarray(tensor.numpy())


def to_torch(array, dtype=None):
    plain = np.array(array.astype(jnp.float32)) if array.dtype == jnp.bfloat16 else np.array(array)
    return torch.from_numpy(plain).to(dtype)


def on_ranks(body):
    def run(communicator):
        with switchyard.Buffer(
            communicator, max_tokens=max(lengths), hidden=hidden, num_experts=experts, top_k=top_k
        ) as buffer:
            return body(buffer, communicator.rank)

    return as_threads(ranks, run)


def inputs_of(dtype=torch.float32):
    return [
        reference.make_inputs(r, tokens=lengths[r], hidden=hidden, experts=experts, top_k=top_k, dtype=dtype)
        for r in range(ranks)
    ]


def test_a_cast_to_fp8_and_a_layout():
    inputs = inputs_of(torch.bfloat16)

    def body(buffer, rank):
        ids = to_jax(inputs[rank].topk_idx)
        result = buffer.dispatch(to_jax(inputs[rank].x), ids, cast_to_fp8=True)
        assert result.x.dtype == jnp.float8_e4m3fn and result.scales.dtype == jnp.float32
        wide = result.x.astype(jnp.float32).reshape(-1, hidden // 128, 128) * result.scales[:, :, None]
        in_rank = buffer.get_layout(ids).is_token_in_rank
        assert in_rank.dtype == jnp.bool_
        assert torch.equal(to_torch(in_rank), reference.ranks_of(inputs[rank], experts, ranks))
        return to_torch(wide).flatten(1)

    for rank, x in enumerate(on_ranks(body)):
        torch.testing.assert_close(x, reference.flat(inputs, rank, experts).x.float(), rtol=2**-4, atol=2**-9)


def test_inputs_still_being_computed_are_waited_for():
    @jax.jit
    def slow(x):
        for _ in range(8):
            x = x @ x / x.shape[0]
        return x[: lengths[0], :hidden] * jnp.arange(1, lengths[0] + 1)[:, None]

    def body(buffer, rank):
        x = slow(jnp.ones((1024, 1024)))  # JAX returns before it is there
        result = buffer.dispatch(x, jnp.full((lengths[0], 1), 0))
        return np.asarray(result.x), np.asarray(result.source_token)

    def run(communicator):
        with switchyard.Buffer(communicator, max_tokens=9, hidden=hidden, num_experts=experts, top_k=1) as buffer:
            return body(buffer, communicator.rank)

    x, source = as_threads(ranks, run)[0]
    assert x.shape == (2 * lengths[0], hidden)
    np.testing.assert_allclose(x, np.repeat(source[:, None] + 1.0, hidden, 1), rtol=1e-5)


def test_results_are_not_copies_and_may_be_donated():
    def body(buffer, rank):
        mine = inputs_of()[rank]
        result = buffer.dispatch(to_jax(mine.x), to_jax(mine.topk_idx))
        x, before = result.x, np.array(result.x)
        assert x.unsafe_buffer_pointer() == result._core.x.to_bytes().ctypes.data
        handle = result.handle
        del result
        gc.collect()
        buffer.dispatch(to_jax(mine.x + 1), to_jax(mine.topk_idx))  # does not get the memory of x
        np.testing.assert_array_equal(np.asarray(x), before)
        doubled = jax.jit(lambda rows: rows * 2, donate_argnums=0)(x)
        back = buffer.combine(doubled, handle).x
        times = reference.ranks_of(mine, experts, ranks).sum(1, keepdim=True)
        torch.testing.assert_close(to_torch(back), 2 * times * mine.x)

    on_ranks(body)


def test_int64_where_jax_has_it():
    inputs = inputs_of()

    def body(buffer, rank):
        with jax.enable_x64(True):
            ids = jnp.asarray(inputs[rank].topk_idx.numpy())
            result = buffer.dispatch(to_jax(inputs[rank].x), ids)
            assert isinstance(result.topk_idx, jax.Array) and result.topk_idx.dtype == jnp.int64
            assert torch.equal(to_torch(result.topk_idx), reference.flat(inputs, rank, experts).topk_idx)

    on_ranks(body)


def test_an_immutable_array_is_not_written_to():
    def body(buffer, rank):
        mine = inputs_of()[rank]
        result = buffer.dispatch(to_jax(mine.x), to_jax(mine.topk_idx))
        out = jnp.zeros(mine.x.shape)
        with pytest.raises(switchyard.InvalidArgument, match="out: .*immutable"):
            buffer.combine(result.x, result.handle, out=out)
        assert not out.any()
        writable = np.zeros(mine.x.shape, np.float32)
        buffer.combine(result.x, result.handle, out=writable)
        assert writable.any()

    on_ranks(body)


def test_a_decoding_step():
    job = Job(2)

    def body(communicator):
        rank = communicator.rank
        mine = job.inputs(rank)
        with switchyard.LowLatencyBuffer(
            communicator,
            max_tokens=job.max_tokens,
            hidden=job.hidden,
            num_experts=job.experts,
            top_k=job.top_k,
        ) as buffer:
            received, hook = buffer.send_dispatch(to_jax(mine.x), to_jax(mine.topk_idx))
            hook()
            assert isinstance(received.x, jax.Array) and isinstance(received.counts, jax.Array)
            # JAX has no int64 here: it would lose the half of a range that says where it begins.
            assert isinstance(received.ranges, np.ndarray) and received.ranges.dtype == np.int64
            rows = to_torch(received.x, torch.bfloat16)
            others = (to_torch(received.counts), to_torch(received.source_token), torch.from_numpy(received.ranges))
            check_received(job, rank, (rows, None, *others))
            made, weights = to_jax(outputs_of(rows, rank, job)), to_jax(mine.topk_weights)
            back, hook = buffer.send_combine(made, received.handle, topk_weights=weights)
            hook()
            assert isinstance(back, jax.Array)
            assert torch.equal(to_torch(back, torch.bfloat16), sums(job, rank))

    as_threads(job.ranks, body)
