"""The real mpi4py, under the real mpirun."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

program = Path(__file__).with_name("mpi_ranks.py")


@pytest.mark.parametrize("played", [["00"], ["0011", "0112"]], ids=" ".join)
def test_ranks_of_mpi4py(played):
    mpirun = shutil.which("mpirun")
    assert mpirun, "mpirun: not in PATH; ./dev python installs openmpi-bin"
    # The user may be root, the cores fewer than the ranks: as in CI.
    command = [mpirun, "--allow-run-as-root", "--oversubscribe", "--timeout", "120", "-n", str(len(played[0]))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, sys.executable, str(program), *played], capture_output=True, text=True, env=environment, timeout=150
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.strip() == "ok"
