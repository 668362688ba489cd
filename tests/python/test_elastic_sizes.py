"""How many tokens of a rank an engine of ElasticBuffer is made for."""

import pytest
from deep_ep._elastic_sizes import engine_tokens


@pytest.mark.parametrize(
    "of_call, of_buffer, most, expected",
    [
        (0, 4096, 1 << 20, 0),  # nobody says
        (7, 4096, 1 << 20, 4096),
        (4096, 4096, 1 << 20, 4096),
        (4097, 4096, 1 << 20, 8192),
        (8192, 4096, 1 << 20, 8192),
        (700, 0, 1 << 20, 1024),
        (3000001, 0, 4194303, 4194303),  # the next power of two is more than an engine takes
        (5000000, 0, 4194303, 5000000),  # which the engine refuses
    ],
)
def test_engine_tokens(of_call, of_buffer, most, expected):
    assert engine_tokens(of_call, of_buffer, most) == expected
