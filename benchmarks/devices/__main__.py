"""`python -m benchmarks.devices`: times the ways, interleaved, and writes devices.json.

The device is emulated by the CPU. So this shows what each way computes, on one processor: the share of rows that
it leaves open, and the time of these beside the search. It shows neither the speed of a device nor what transfers
cost.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.devices import pairs
from benchmarks.files import write_json
from benchmarks.kernels.motion import Moving, step_length
from benchmarks.kernels.rivals import Rival, WithSetup, Work, prepare_ours
from benchmarks.kernels.shapes import Shape, draw
from benchmarks.kernels.timing import interleave
from benchmarks.machine import record
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.nearest.operation import nearest_code

BUDGET_S = 4.0


def ties(shape: Shape) -> tuple[Tensor, Tensor]:
    """Whole numbers, of which many distances are equal."""
    x, codebook = draw(shape, torch.device("cpu"))
    return (2 * x).round(), (2 * codebook).round()


def collapsed(shape: Shape) -> tuple[Tensor, Tensor]:
    """Codes around two centres, within 10⁻⁶ of them."""
    x, codebook = draw(shape, torch.device("cpu"))
    sides = torch.arange(shape.k) % 2 * 2 - 1
    return x, sides[:, None] + 1e-6 * codebook


def normal(shape: Shape) -> tuple[Tensor, Tensor]:
    return draw(shape, torch.device("cpu"))


DATA: dict[str, tuple[Callable[[Shape], tuple[Tensor, Tensor]], Shape]] = {
    "normal 8192x512x64": (normal, Shape(8192, 512, 64)),
    "normal 8192x1024x256": (normal, Shape(8192, 1024, 256)),
    "normal 16384x8192x32": (normal, Shape(16384, 8192, 32)),
    "normal 32768x8192x8": (normal, Shape(32768, 8192, 8)),
    "ties 8192x1024x4": (ties, Shape(8192, 1024, 4)),
    "collapsed codes 2048x512x64": (collapsed, Shape(2048, 512, 64)),
}


def prepare_pairs(x: Tensor, codebook: Tensor) -> Work:
    codes = codebook.clone()
    return WithSetup(Moving(codes, step_length(x, codes)).step, lambda: (pairs.nearest_code(x, codes)[0],))


WAYS = (
    Rival("open rows in float64 on the CPU", lambda x, codes: prepare_ours(x, codes, "blocked")),
    Rival("open rows by pairs on the device", prepare_pairs),
    Rival("all rows on the CPU, compiled", lambda x, codes: prepare_ours(x, codes, "compiled")),
    Rival("all rows on the CPU, reference", lambda x, codes: prepare_ours(x, codes, "reference")),
)


def measure(x: Tensor, codebook: Tensor) -> dict[str, Any]:
    """Return the times of each way, the share of open rows, and how many indices differ from the reference's."""
    with use_implementation("reference"):
        expected = nearest_code(x[None], codebook[None])[0][0]
    with use_implementation("blocked"):
        by_float64 = nearest_code(x[None], codebook[None])[0][0]
    by_pairs, after_scores, after_pairs = pairs.nearest_code(x, codebook)
    times, failures = interleave(WAYS, x, codebook, budget_s=BUDGET_S)
    return {
        "open_after_scores": after_scores / len(x),
        "open_after_pairs": after_pairs / len(x),
        "wrong": {"float64": int((by_float64 != expected).sum()), "pairs": int((by_pairs != expected).sum())},
        "ms": {name: asdict(each) for name, each in times.items()},
        "failures": failures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/devices"), help="the folder of devices.json")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, (make, shape) in DATA.items():
        before = os.getloadavg()[0]
        found[name] = {**measure(*make(shape)), "load": [before, os.getloadavg()[0]]}
        medians = ", ".join(f"{way}: {each['median']:.1f} ms" for way, each in found[name]["ms"].items())
        print(f"{name}: open {found[name]['open_after_scores']:.2%}, {medians}", flush=True)
    write_json(folder / "devices.json", {**record(torch.device("cpu")), "searches": found})


if __name__ == "__main__":
    main()
