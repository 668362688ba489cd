"""The call sequences of deep_ep's users, in processes that gloo joins."""

import clients
import pytest
from ranks import as_processes


@pytest.mark.parametrize("size", [2, 4])
def test_every_client(size):
    as_processes(size, clients.every_client)
