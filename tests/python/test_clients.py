"""The call sequences of deep_ep's users, in processes that gloo joins."""

import clients
import decoding_clients
import pytest
from ranks import as_processes


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("of", [clients, decoding_clients], ids=lambda module: module.__name__)
def test_every_client(of, size):
    as_processes(size, of.every_client)
