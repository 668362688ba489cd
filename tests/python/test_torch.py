"""switchyard.torch: gradients, torch.compile, activation checkpointing, the module."""

import pytest
import reference
import switchyard
import switchyard.torch as sy
import torch
from ranks import as_threads
from torch.utils.checkpoint import checkpoint
from torch_layer import check_compiled, dense, matrices_of, run_experts

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


def expected_of_rank(rank):
    """Output, and gradients of inputs; experts' gradients are summed over all ranks."""
    everything = matrices_of(experts, hidden).requires_grad_()
    outputs = []
    for r in range(ranks):
        mine = inputs_of(r)
        x, w = mine.x.clone().requires_grad_(), mine.topk_weights.clone().requires_grad_()
        y = dense(x, mine.topk_idx, w, everything)
        (y.square().sum()).backward()
        outputs.append((y.detach(), x.grad, w.grad))
    own = reference.experts_of(rank, experts, ranks)
    return *outputs[rank], everything.grad[own.start : own.stop]


def layer_on_rank(buffer, rank, wrap=lambda f: f, alignment=1):
    mine = inputs_of(rank)
    own = reference.experts_of(rank, experts, ranks)
    weights = matrices_of(experts, hidden)[own.start : own.stop].clone().requires_grad_()
    x, w = mine.x.clone().requires_grad_(), mine.topk_weights.clone().requires_grad_()
    layer = sy.MoEDispatcher(buffer, run_experts(weights), expert_alignment=alignment)
    y = wrap(layer)(x, mine.topk_idx, w)
    y.square().sum().backward()
    return y.detach(), x.grad, w.grad, weights.grad


def check_layer(results):
    for rank, got in enumerate(results):
        for seen, wanted in zip(got, expected_of_rank(rank)):
            torch.testing.assert_close(seen, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("alignment", [1, 4])
def test_the_module_equals_the_dense_layer_forward_and_backward(alignment):
    check_layer(on_ranks(lambda buffer, rank: layer_on_rank(buffer, rank, alignment=alignment)))


def test_activation_checkpointing_dispatches_again():
    def wrap(layer):
        return lambda *args: checkpoint(layer, *args, use_reentrant=False)

    check_layer(on_ranks(lambda buffer, rank: layer_on_rank(buffer, rank, wrap)))


@pytest.mark.parametrize("layout", ["flat", "expanded"])
def test_gradients_are_the_transposed_maps(layout):
    """<dispatch(x), g> == <x, backward(g)>, and so for the weights and for combine."""

    def body(buffer, rank):
        mine = inputs_of(rank)
        x, w = mine.x.clone().requires_grad_(), mine.topk_weights.clone().requires_grad_()
        routed = sy.dispatch(buffer, x, mine.topk_idx, w, layout=layout)
        gx, gw = torch.randn_like(routed.x), torch.randn_like(routed.topk_weights)
        torch.autograd.backward([routed.x, routed.topk_weights], [gx, gw])
        rows = torch.randn_like(routed.x).requires_grad_()
        y = sy.combine(buffer, rows, routed)
        gy = torch.randn_like(y)
        y.backward(gy)
        again = x.detach().clone().requires_grad_()
        same = sy.dispatch_cached(buffer, again, routed)
        assert torch.equal(same, routed.x.detach())
        same.backward(gx)
        torch.testing.assert_close(again.grad, x.grad)
        return [
            [(routed.x.detach() * gx).sum(), (routed.topk_weights.detach() * gw).sum(), (y.detach() * gy).sum()],
            [(x.grad * mine.x).sum(), (w.grad * mine.topk_weights).sum(), (rows.grad * rows.detach()).sum()],
        ]

    left, right = torch.tensor(on_ranks(body)).sum(0)
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


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


def test_compiled_equals_eager():
    def body(buffer, rank):
        check_compiled(buffer, inputs_of(rank))

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


def test_peers_hear_of_a_token_that_is_gone_and_of_a_wrong_layout():
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
