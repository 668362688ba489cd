"""Wrong arguments end in an exception of the right class on every rank, and the buffer stays usable."""

import pickle
import re

import deep_ep
import pytest
import switchyard
import torch
from producers import OnlyDlpack
from ranks import as_threads, with_comm

ranks, tokens, hidden, experts, top_k = 2, 8, 16, 4, 2


def good(rank):
    random = torch.Generator().manual_seed(rank)
    x = torch.randn(tokens, hidden, generator=random).bfloat16()
    return {"x": x, "topk_idx": torch.tensor([[0, 3]] * tokens), "topk_weights": torch.ones(tokens, top_k)}


def make_buffer(communicator, **options):
    sizes = {"max_tokens": tokens, "hidden": hidden, "num_experts": experts, "top_k": top_k}
    return switchyard.Buffer(communicator, **(sizes | options))


def on_ranks(body):
    def run(communicator):
        with make_buffer(communicator) as buffer:
            return body(buffer, communicator.rank)

    return as_threads(ranks, run)


def check_usable(buffer, rank):
    result = buffer.dispatch(**good(rank))
    assert torch.equal(buffer.combine(result.x, result.handle).x, good(rank)["x"] * 2)


wrong = {
    "dtype the library lacks": ({"x": torch.zeros(tokens, hidden).double()}, "x: expected dtype .*float64"),
    "dtype of weights": ({"topk_weights": torch.ones(tokens, top_k).half()}, "topk_weights: expected dtype f32"),
    "ids of a wrong dtype": ({"topk_idx": torch.zeros(tokens, top_k)}, "topk_idx: expected dtype i64 or i32"),
    "one dimension": ({"x": torch.zeros(hidden).bfloat16()}, "x: expected 2 dimensions, seen 1"),
    "a scalar": ({"x": torch.tensor(1.0)}, "x: expected a tensor of 1 to 3 dimensions"),
    "four dimensions": ({"x": torch.zeros(1, 1, tokens, hidden)}, "x: expected at most 3 dimensions, seen 4"),
    "hidden": ({"x": torch.zeros(tokens, hidden + 1).bfloat16()}, "x: dimension 1: expected 16, seen 17"),
    "too many tokens": ({"x": torch.zeros(tokens + 1, hidden).bfloat16()}, "at most max_tokens = 8"),
    "top-k": ({"topk_idx": torch.zeros(tokens, 3, dtype=torch.int64)}, "topk_idx: dimension 1: expected 2, seen 3"),
    "an id out of range": ({"topk_idx": torch.full((tokens, top_k), experts)}, "topk_idx"),
    "elements of a row apart": ({"x": torch.zeros(hidden, tokens).bfloat16().t()}, "x: expected adjacent elements"),
    "scales without fp8": ({"scales": torch.ones(tokens, 1)}, "scales: expected none"),
    "fp8 without scales": ({"x": torch.zeros(tokens, hidden).to(torch.float8_e4m3fn)}, "scales: expected a tensor"),
    "another device": ({"x": torch.zeros(tokens, hidden, device="meta")}, "x: expected a dense tensor on a CPU"),
    "a sparse tensor": ({"x": torch.zeros(tokens, hidden).to_sparse()}, "x: expected a dense tensor on a CPU"),
    "ids of another device": (
        {"topk_idx": torch.zeros(tokens, top_k, dtype=torch.int64, device="meta")},
        "topk_idx: expected a dense tensor",
    ),
    "no routing": ({"topk_idx": None, "topk_weights": None}, "routing: expected exactly one"),
    "alignment": ({"expert_alignment": 0}, "expert_alignment: expected 1"),
    "too few rows": ({"num_worst_tokens": 1}, "num_worst_tokens: expected"),
}


@pytest.mark.parametrize("case", wrong)
@pytest.mark.parametrize("culprits", [(1,), (0, 1)], ids=["one rank", "all ranks"])
def test_dispatch(case, culprits):
    change, text = wrong[case]

    def body(buffer, rank):
        arguments = good(rank) | (change if rank in culprits else {})
        with pytest.raises(Exception) as caught:  # noqa: B017
            buffer.dispatch(**arguments)
        check_usable(buffer, rank)
        return caught.value

    errors = on_ranks(body)
    for error in errors:
        assert isinstance(error, switchyard.InvalidArgument) and isinstance(error, ValueError)
    assert re.search(text, str(errors[culprits[0]])), errors[culprits[0]]


@pytest.mark.parametrize("value", ["text", 3, [[1.0]], object()])
def test_an_object_that_is_not_a_tensor_is_a_type_error_and_peers_learn_of_it(value):
    def body(buffer, rank):
        arguments = good(rank) | ({"x": value} if rank == 0 else {})
        expected = (TypeError, "x: expected a tensor") if rank == 0 else (switchyard.InvalidArgument, "rank 0: x")
        with pytest.raises(expected[0], match=expected[1]):
            buffer.dispatch(**arguments)
        check_usable(buffer, rank)

    on_ranks(body)


def test_combine():
    def body(buffer, rank):
        result = buffer.dispatch(**good(rank))
        rows = result.x
        cases = [
            ({"x": rows[1:]}, "x: dimension 0"),
            ({"x": rows.double()}, "x: expected dtype"),
            ({"row_weights": torch.ones(3)}, "row_weights: dimension 0"),
            ({"bias0": torch.zeros(tokens, hidden)}, "bias0: expected dtype bf16"),
            ({"out": torch.zeros(tokens, hidden).bfloat16()[:, ::2]}, "out"),
            ({"topk_weights": torch.ones(len(rows), 1)}, "topk_weights: dimension 1"),
        ]
        for change, text in cases:
            with pytest.raises(switchyard.InvalidArgument, match=text):
                buffer.combine(**({"x": rows, "handle": result.handle} | change))
        with pytest.raises(switchyard.InvalidArgument, match="handle: expected the handle of a dispatch, seen none"):
            buffer.combine(rows, None)
        kind = TypeError if rank == 0 else switchyard.InvalidArgument
        text = "handle: expected the Handle of a dispatch, seen int" if rank == 0 else "rank 0: "
        for call in (buffer.combine, buffer.combine_async):
            with pytest.raises(kind, match=text):
                pending = call(rows, 7 if rank == 0 else result.handle)
                pending.get()  # of the asynchronous one
        check_usable(buffer, rank)

    on_ranks(body)


def test_read_only_output():
    import numpy

    def body(buffer, rank):
        result = buffer.dispatch(good(rank)["x"].float().numpy(), good(rank)["topk_idx"].numpy())
        out = numpy.zeros((tokens, hidden), numpy.float32)
        out.flags.writeable = False
        with pytest.raises(switchyard.InvalidArgument, match="out: expected an array that may be written to"):
            buffer.combine(result.x, result.handle, out=out)
        check_usable(buffer, rank)

    on_ranks(body)


def test_read_only_output_by_dlpack():
    import numpy

    def body(buffer, rank):
        x, ids = good(rank)["x"].float().numpy(), good(rank)["topk_idx"].numpy()
        x.flags.writeable = False
        result = buffer.dispatch(OnlyDlpack(x), ids)
        out = numpy.zeros((tokens, hidden), numpy.float32)
        assert buffer.combine(result.x, result.handle, out=OnlyDlpack(out)).x.tensor is out
        assert (out == 2 * x).all()
        out.flags.writeable = False
        with pytest.raises(switchyard.InvalidArgument, match="out: expected a tensor that may be written to"):
            buffer.combine(result.x, result.handle, out=OnlyDlpack(out))
        check_usable(buffer, rank)

    on_ranks(body)


def test_ranks_that_ask_for_different_things():
    def body(buffer, rank):
        arguments = good(rank)
        if rank == 1:
            arguments["x"] = arguments["x"].half()
        with pytest.raises(switchyard.InvalidArgument, match="rank 1: x: dtype: expected bf16 as on rank 0") as e:
            buffer.dispatch(**arguments)
        assert e.value.rank == 1 and e.value.peer == -1 and e.value.phase
        check_usable(buffer, rank)

    on_ranks(body)


def test_options():
    def differ(communicator):
        with pytest.raises(switchyard.InvalidArgument, match="hidden"):
            make_buffer(communicator, hidden=hidden + communicator.rank)
        with pytest.raises(switchyard.InvalidArgument, match="top_k: expected 1..64, seen 65"):
            make_buffer(communicator, top_k=65)
        with pytest.raises(switchyard.InvalidArgument, match="engine: expected 'auto' or 'cpu' or 'cuda', seen 'tpu'"):
            make_buffer(communicator, engine="tpu")
        with pytest.raises(TypeError, match="hidden: expected a whole number that fits, seen 'wide'"):
            make_buffer(communicator, hidden="wide")
        with pytest.raises(TypeError, match="timeout: expected seconds, seen 'long'"):
            make_buffer(communicator, timeout="long")
        with pytest.raises(switchyard.InvalidArgument, match="timeout: expected seconds, seen nan"):
            make_buffer(communicator, timeout=float("nan"))
        from switchyard import _core

        if not _core.has_cuda:
            with pytest.raises(switchyard.Unsupported, match="no CUDA engine") as caught:
                make_buffer(communicator, engine="cuda")
            assert isinstance(caught.value, NotImplementedError)

    as_threads(ranks, differ)


def test_keyword_arguments():
    def body(buffer, rank):
        with pytest.raises(TypeError, match="wide: not a keyword argument of this call; expected .*cast_to_fp8"):
            buffer.dispatch(**good(rank), wide=True)
        with pytest.raises(switchyard.InvalidArgument, match="layout: expected 'flat' or 'expanded', seen 'wide'"):
            buffer.dispatch(**good(rank), layout="wide")
        with pytest.raises(TypeError, match="num_worst_tokens: expected a whole number that fits, seen 'many'"):
            buffer.dispatch(**good(rank), num_worst_tokens="many")
        with pytest.raises(TypeError, match="handle: expected the Handle of a dispatch, seen int"):
            buffer.dispatch(good(rank)["x"], handle=7)
        check_usable(buffer, rank)

    on_ranks(body)


bad_options = {
    "unknown": ({"wide": True}, TypeError, "wide: not a keyword argument"),
    "layout": ({"layout": "wide"}, switchyard.InvalidArgument, "layout: expected 'flat' or 'expanded', seen 'wide'"),
    "number": ({"num_workers": "many"}, TypeError, "num_workers: expected a whole number that fits, seen 'many'"),
    "event": ({"after": 3}, TypeError, "after: expected an Event, seen int"),
}


@pytest.mark.parametrize("case", bad_options)
@pytest.mark.parametrize("suffix", ["", "_async"], ids=["at once", "queued"])
def test_an_option_that_one_rank_gets_wrong(case, suffix):
    change, kind, text = bad_options[case]

    def body(buffer, rank):
        def call(name, *args, **good_options):
            options = good_options | (change if rank == 1 else {})
            expected = (kind, text) if rank == 1 else (switchyard.InvalidArgument, "rank 1: ")
            with pytest.raises(expected[0], match=expected[1]):
                pending = getattr(buffer, name + suffix)(*args, **options)
                pending.get()  # of the queued one

        call("dispatch", **good(rank))
        result = buffer.dispatch(**good(rank))
        if case != "layout":
            call("combine", result.x, result.handle)
        check_usable(buffer, rank)

    on_ranks(body)


def test_swapped_bytes():
    def body(buffer, rank):
        mine = good(rank)
        x, ids = mine["x"].float().numpy(), mine["topk_idx"].numpy()
        for arguments in ((x.astype(">f4"), ids), (x, ids.astype(">i8"))):
            with pytest.raises(switchyard.InvalidArgument, match="this machine's byte order"):
                buffer.dispatch(*arguments)
        check_usable(buffer, rank)

    on_ranks(body)


def test_a_wait_of_no_number_of_seconds():
    with pytest.raises(switchyard.InvalidArgument, match="timeout: expected seconds, seen nan"):
        switchyard.Event().wait(float("nan"))
    with pytest.raises(switchyard.InvalidArgument, match="timeout: expected seconds, seen nan"):
        switchyard.Communicator.join(switchyard.Store(), rank=0, size=1, timeout=float("nan"))


def test_a_meeting_point_that_cannot_be_made(monkeypatch):
    monkeypatch.setenv("SWITCHYARD_LISTEN", "nowhere")

    text = "SWITCHYARD_LISTEN: expected an address or a name of this machine, seen 'nowhere'"

    def body(comm):
        with pytest.raises(switchyard.InvalidArgument, match=text):
            switchyard.Communicator.from_mpi(comm)

    with_comm(ranks, body)


class AwayComm:
    """Of mpi4py, as far as it is needed: the last rank is on another machine."""

    def __init__(self, comm):
        self.comm = comm
        self.Get_rank, self.Get_size = comm.Get_rank, comm.Get_size

    def allgather(self, mine):
        away = self.Get_rank() == self.Get_size() - 1
        return self.comm.allgather(("another machine", *mine[1:]) if away else mine)


@pytest.mark.parametrize(
    "make", [switchyard.Communicator.from_mpi, lambda comm: deep_ep.Buffer(comm=comm)], ids=["switchyard", "deep_ep"]
)
def test_no_address_for_other_machines(make, monkeypatch):
    monkeypatch.setenv("SWITCHYARD_ADDRESS", "203.0.113.1")  # of another machine

    def body(comm):
        with pytest.raises(switchyard.InvalidArgument, match="^SWITCHYARD_ADDRESS: expected an address of rank 0's"):
            make(AwayComm(comm))

    with_comm(ranks, body)


def test_an_address_for_other_machines(monkeypatch):
    monkeypatch.setenv("SWITCHYARD_ADDRESS", "127.0.0.1")  # where they are here, whatever they say

    def body(comm):
        with switchyard.Communicator.from_mpi(AwayComm(comm)) as communicator:
            return communicator.num_nodes

    assert with_comm(ranks, body) == [1] * ranks


@pytest.mark.parametrize("kind", ["InvalidArgument", "SystemCallError", "OutOfMemory", "Timeout"])
def test_errors_travel_between_processes(kind):
    error = getattr(switchyard, kind)("text", 1, 2, "phase")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == "text"
    assert (again.rank, again.peer, again.phase) == (1, 2, "phase")


def test_out_of_memory_says_how_much():
    def run(communicator):
        with make_buffer(communicator, heap_bytes=4096) as buffer:
            with pytest.raises(switchyard.OutOfMemory, match="expected .* free bytes") as caught:
                buffer.dispatch(**good(communicator.rank), num_worst_tokens=tokens * ranks * 8)
            assert isinstance(caught.value, MemoryError) and isinstance(caught.value, switchyard.Error)
            with pytest.raises(switchyard.OutOfMemory):
                buffer.allocate("float32", (1 << 20,))

    as_threads(ranks, run)


def test_a_handle_of_another_buffer():
    def run(communicator):
        with make_buffer(communicator) as one, make_buffer(communicator) as other:
            result = one.dispatch(**good(communicator.rank))
            with pytest.raises(switchyard.InvalidArgument, match="handle of this buffer"):
                other.combine(result.x, result.handle)

    as_threads(ranks, run)
