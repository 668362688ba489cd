"""switchyard.torch: numeric gradients, compilers, tokens, mistakes. Layers are in bodies/layers.py."""

import pytest
import reference
import switchyard
import switchyard.torch as sy
import torch
from ranks import as_threads

ranks, tokens, hidden, experts, top_k = 2, 9, 16, 5, 3


def inputs_of(rank):
    return reference.make_inputs(
        rank, tokens=tokens - rank, hidden=hidden, experts=experts, top_k=top_k, dtype=torch.float32
    )


def make_buffer(communicator):
    return switchyard.Buffer(communicator, max_tokens=tokens, hidden=hidden, num_experts=experts, top_k=top_k)


def on_ranks(body, size=ranks):
    def run(communicator):
        with make_buffer(communicator) as buffer:
            return body(buffer, communicator.rank)

    return as_threads(size, run)


@pytest.mark.filterwarnings("ignore:.*double precision:UserWarning")
def test_gradcheck_on_one_rank():
    def body(buffer, rank):
        mine = inputs_of(0)
        few = slice(0, 3)

        def layer(x, w):
            routed = sy.dispatch(buffer, x, mine.topk_idx[few], w)
            return sy.combine(buffer, routed.x * routed.topk_weights.sum(1, keepdim=True), routed)

        arguments = mine.x[few].clone().requires_grad_(), mine.topk_weights[few].clone().requires_grad_()
        assert torch.autograd.gradcheck(layer, arguments, eps=1e-2, atol=2e-2, rtol=2e-2, nondet_tol=0)

    on_ranks(body, size=1)


def test_a_compiled_function_takes_one_buffer_after_another():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def layer(buffer, x, ids):
        routed = sy.dispatch(buffer, x, ids)
        return sy.combine(buffer, routed.x, routed)

    def run(communicator):
        mine = inputs_of(0)
        for _ in range(3):
            with make_buffer(communicator) as buffer:
                routed = sy.dispatch(buffer, mine.x, mine.topk_idx)
                assert torch.equal(layer(buffer, mine.x, mine.topk_idx), sy.combine(buffer, routed.x, routed))

    as_threads(1, run)


def test_operators_pass_pytorchs_own_checks():
    def body(buffer, rank):
        mine = inputs_of(0)
        x, w = mine.x.clone().requires_grad_(), mine.topk_weights.clone().requires_grad_()
        tests = ("test_schema", "test_autograd_registration", "test_faketensor")
        ops = torch.ops.switchyard
        torch.library.opcheck(ops.dispatch, (x, mine.topk_idx, w, buffer.key, False, 1), test_utils=tests)
        rows, _, _, _, token = ops.dispatch(x, mine.topk_idx, w, buffer.key, False, 1)
        torch.library.opcheck(
            ops.combine, (rows.detach().requires_grad_(), None, token, buffer.key, len(x), False), test_utils=tests
        )
        torch.library.opcheck(
            ops.dispatch_cached, (x, token, buffer.key, rows.shape[0], False), test_utils=tests
        )

    on_ranks(body, size=1)


def test_a_token_lives_as_long_as_its_tensor():
    def body(buffer, rank):
        mine = inputs_of(rank)
        routed = sy.dispatch(buffer, mine.x, mine.topk_idx)
        copy = routed._replace(token=routed.token.clone())
        rows = routed.x
        assert torch.equal(sy.combine(buffer, rows, copy), sy.combine(buffer, rows, routed))
        del routed
        with pytest.raises(switchyard.Unusable, match="keep the tensor that the dispatch returned"):
            sy.combine(buffer, rows, copy)

    on_ranks(body)


def test_peers_learn_of_a_token_that_is_gone_and_of_a_wrong_layout():
    def body(buffer, rank):
        mine = inputs_of(rank)
        routed = sy.dispatch(buffer, mine.x, mine.topk_idx)
        other = sy.dispatch(buffer, mine.x, mine.topk_idx)
        lost = other._replace(token=other.token.clone()) if rank == 0 else other
        if rank == 0:
            del other
        for call in (
            lambda: sy.combine(buffer, routed.x, lost),
            lambda: sy.dispatch_cached(buffer, mine.x, lost),
            lambda: sy.dispatch(buffer, mine.x, mine.topk_idx, layout="wide" if rank == 0 else "flat"),
        ):
            mine_alone = switchyard.Unusable, ValueError
            with pytest.raises(mine_alone if rank == 0 else switchyard.InvalidArgument) as caught:
                call()
            assert rank == 0 or "rank 0: " in str(caught.value)
        assert torch.equal(sy.dispatch_cached(buffer, mine.x, routed), routed.x)

    on_ranks(body)


def test_bad_layout_and_lost_buffer():
    def body(buffer, rank):
        mine = inputs_of(rank)
        with pytest.raises(ValueError, match="layout: expected 'flat' or 'expanded', seen 'wide'"):
            sy.dispatch(buffer, mine.x, mine.topk_idx, layout="wide")
        with pytest.raises(switchyard.Unusable, match="it is gone"):
            torch.ops.switchyard.dispatch(mine.x, mine.topk_idx, None, 10**9, False, 1)

    on_ranks(body, size=1)
