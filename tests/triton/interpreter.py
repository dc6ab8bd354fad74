"""Where the tests of Triton kernels run: on a CUDA device, or in Triton's interpreter on CPU tensors.

`triton.jit` decides at import between compiling and interpreting, by TRITON_INTERPRET. So a process does either:

- A module that runs kernels says `pytestmark = runs_kernels` and makes its tensors on `device()`. Its tests run
  directly where there is a CUDA device or the variable is set, and are skipped elsewhere.
- `test_interpreted.py` starts such modules in processes of their own with TRITON_INTERPRET=1, and requires that
  all of it passed and nothing was skipped. So every machine runs them.
- Modules named test_compiles_*.py compile ahead of time, or record launches (variants.py), and say
  `pytestmark = compiles_kernels`.
"""

import os

import pytest
import torch

from quantizers.kernels.common.dispatch import old_triton_obstacle

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
QUICK_VARIABLE = "QUICK_INTERPRETED_TESTS"
QUICK = INTERPRETED and os.environ.get(QUICK_VARIABLE) == "1"
"""Whether the interpreter runs larger programs than a device: a large one takes it as long as a small one."""


def device() -> torch.device:
    """The device that kernels run on in this process."""
    return torch.device("cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda")


runs_kernels = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(),
    reason="no CUDA device; test_interpreted.py runs this module in Triton's interpreter",
)
compiles_kernels = pytest.mark.skipif(
    INTERPRETED or bool(old_triton_obstacle()),
    reason=old_triton_obstacle() or "interpreted functions cannot be compiled",
)
