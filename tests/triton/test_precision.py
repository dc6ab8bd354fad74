"""Which precision the search takes from PyTorch's settings. A setting cannot be undone, so each has a process."""

import json
import subprocess
import sys

PROGRAM = """
import json, os, sys
import torch
from quantizers.kernels.nearest.triton.precision import matmul_mode

for settings in json.loads(sys.argv[1]):
    sys.stdout.flush()
    if not (child := os.fork()):
        exec(settings)
        print(matmul_mode(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
EXPECTED = {
    "": "exact",
    "torch.set_float32_matmul_precision('highest')": "exact",
    "torch.set_float32_matmul_precision('high')": "tf32",
    "torch.set_float32_matmul_precision('medium')": "bf16",
    "torch.backends.cuda.matmul.allow_tf32 = True": "tf32",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'": "tf32",
    "torch.backends.cuda.matmul.fp32_precision = 'ieee'": "exact",
    "torch.backends.fp32_precision = 'tf32'": "tf32",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'": "exact",
    "torch.set_float32_matmul_precision('medium'); torch.backends.cuda.matmul.fp32_precision = 'ieee'": "exact",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'; torch.set_float32_matmul_precision('medium')": "bf16",
}


def test_mode_follows_every_way_of_setting_the_precision() -> None:
    command = [sys.executable, "-c", PROGRAM, json.dumps(list(EXPECTED))]
    modes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert dict(zip(EXPECTED, modes, strict=True)) == EXPECTED
