import os

# Before the library reads it: tests are of the CPU engine, and a rank that waits for nobody fails soon.
os.environ.setdefault("SWITCHYARD_ENGINE", "cpu")
os.environ.setdefault("SWITCHYARD_TIMEOUT_MS", "20000")

import torch  # noqa: E402

torch.set_num_threads(1)
