"""Texts with bytes that are not UTF-8, and strings that UTF-8 has no bytes for: errors stay what they are."""

import os
import subprocess
import sys

import pytest
import switchyard
import torch
from producers import OnlyDlpack
from ranks import as_threads
from test_bad_input import check_usable, good, make_buffer, on_ranks


@pytest.fixture
def setting():
    """Sets a variable of the environment to bytes, as the C++ library sees it."""
    changed = {}

    def change(name, value):
        changed.setdefault(name, os.environb.get(name))
        os.environb[name] = value

    yield change
    for name, before in changed.items():
        if before is None:
            del os.environb[name]
        else:
            os.environb[name] = before


@pytest.mark.parametrize("seen, shown", [(b"\xff", r"\\xff"), (b"3\xc3\xa9\xc3", r"3é\\xc3"), ("ü".encode(), "ü")])
def test_a_setting_on_every_rank(setting, seen, shown):
    setting(b"SWITCHYARD_TIMEOUT_MS", seen)

    def body(communicator):
        text = f"rank 0: SWITCHYARD_TIMEOUT_MS: expected 1..86400000, seen '{shown}'"
        with pytest.raises(switchyard.InvalidArgument, match=text) as caught:
            make_buffer(communicator)
        assert isinstance(caught.value, ValueError) and caught.value.rank == 0
        assert caught.value.phase == "construction"

    as_threads(2, body)


def test_a_launcher_variable(setting):
    setting(b"SWITCHYARD_WORLD_SIZE", b"2")
    setting(b"SWITCHYARD_RANK", b"1\x80")
    with pytest.raises(switchyard.InvalidArgument, match=r"SWITCHYARD_RANK: expected .*, seen '1\\x80'"):
        switchyard.Communicator.from_environment()


def test_an_error_that_nobody_catches():
    """The interpreter prints it, and ends as for any other exception."""
    script = "import switchyard; switchyard.Communicator.from_environment()"
    environment = os.environb | {b"SWITCHYARD_RANK": b"\xfe", b"SWITCHYARD_WORLD_SIZE": b"2"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60)
    assert ended.returncode == 1
    assert b"InvalidArgument: SWITCHYARD_RANK" in ended.stderr and rb"'\xfe'" in ended.stderr, ended.stderr


def test_what_a_foreign_tensor_raises():
    class Broken(OnlyDlpack):
        def __dlpack__(self, **options):
            raise BufferError("no \udcff here\nand more")

    def body(buffer, rank):
        arguments = good(rank) | ({"x": Broken(good(rank)["x"])} if rank == 0 else {})
        text = r"DLPack cannot describe \(no \\udcff here\)" if rank == 0 else "rank 0: "
        with pytest.raises(switchyard.InvalidArgument, match=text):
            buffer.dispatch(**arguments)
        check_usable(buffer, rank)

    on_ranks(body)


def test_a_type_whose_module_has_no_bytes():
    stranger = type("Stranger", (), {"__module__": "\udcfe"})
    dense = type("Dense", (OnlyDlpack,), {"__module__": "\udcfe"})

    def body(buffer, rank):
        arguments = good(rank) | ({"x": stranger()} if rank == 0 else {})
        expected = (TypeError, r"seen \\udcfe\.Stranger") if rank == 0 else (switchyard.InvalidArgument, "rank 0: x")
        with pytest.raises(expected[0], match=expected[1]):
            buffer.dispatch(**arguments)
        kept = buffer.dispatch(**good(rank))
        kind = TypeError if rank == 0 else switchyard.InvalidArgument
        with pytest.raises(kind):
            buffer.combine(kept.x, stranger() if rank == 0 else kept.handle)
        wrapped = buffer.dispatch(dense(good(rank)["x"].float()), good(rank)["topk_idx"])
        assert torch.equal(torch.from_dlpack(wrapped.x), buffer.dispatch(**good(rank)).x.float())
        check_usable(buffer, rank)

    on_ranks(body)
