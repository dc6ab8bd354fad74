"""Whether the search must be exact by PyTorch's settings. A setting cannot be undone, so each has a process."""

import json
import subprocess
import sys

PROGRAM = """
import json, os, sys
import torch
from quantizers.kernels.nearest.triton.precision import is_exact

for settings in json.loads(sys.argv[1]):
    sys.stdout.flush()
    if not (child := os.fork()):
        exec(settings)
        print(is_exact(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
# As printed.
EXPECTED = {
    "": "True",
    "torch.set_float32_matmul_precision('highest')": "True",
    "torch.set_float32_matmul_precision('high')": "False",
    "torch.set_float32_matmul_precision('medium')": "False",
    "torch.backends.cuda.matmul.allow_tf32 = True": "False",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'": "False",
    "torch.backends.cuda.matmul.fp32_precision = 'ieee'": "True",
    "torch.backends.fp32_precision = 'tf32'": "False",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'": "True",
    "torch.set_float32_matmul_precision('medium'); torch.backends.cuda.matmul.fp32_precision = 'ieee'": "True",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'; torch.set_float32_matmul_precision('medium')": "False",
}


def test_exactness_follows_every_way_of_setting_the_precision() -> None:
    command = [sys.executable, "-c", PROGRAM, json.dumps(list(EXPECTED))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert dict(zip(EXPECTED, printed, strict=True)) == EXPECTED
