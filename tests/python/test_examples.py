"""Every example checks its own result."""

import os
import subprocess
import sys
from pathlib import Path

examples = Path(__file__).resolve().parents[2] / "examples" / "python"


def test_the_language_model_trains_alike_on_four_ranks_and_on_one():
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    command = [sys.executable, *launcher, str(examples / "moe_language_model.py"), "--steps", "12"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert result.returncode == 0 and "4 ranks against one" in result.stdout, result.stdout + result.stderr
