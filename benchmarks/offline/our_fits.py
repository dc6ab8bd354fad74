"""`quantizers.fit`, as its users call it."""

import numpy as np
import torch

import quantizers
from benchmarks.offline.cells import RESIDUAL
from benchmarks.offline.tasks import Fitted, Task
from quantizers.kernels.common.compiled.library import machine_instructions

WHOLE = "all vectors"  # the phase whose passes assign all of them


def nested(x: np.ndarray, task: Task) -> Fitted:
    """Fit with the defaults: Lloyd's steps on growing samples, then passes over all vectors."""
    return _fit(quantizers.create("vq", task.cell.d, codebook_size=task.cell.k), x, task)


def twice_as_many_passes(x: np.ndarray, task: Task) -> Fitted:
    """Fit with the defaults, but take twice as many passes over all vectors as others may."""
    quantizer = quantizers.create("vq", task.cell.d, codebook_size=task.cell.k)
    return _fit(quantizer, x, task, epochs=2 * task.iterations)


def lloyd(x: np.ndarray, task: Task) -> Fitted:
    quantizer = quantizers.create("vq", task.cell.d, codebook_size=task.cell.k)
    return _fit(quantizer, x, task, method="lloyd", epochs=task.iterations)


def minibatch(x: np.ndarray, task: Task) -> Fitted:
    return _fit(quantizers.create("vq", task.cell.d, codebook_size=task.cell.k), x, task, method="minibatch")


def from_seeds(x: np.ndarray, task: Task) -> Fitted:
    """Take passes over all vectors from the shared seeds."""
    quantizer = quantizers.create("vq", task.cell.d, codebook_size=task.cell.k)
    assert task.seeds is not None
    quantizer.set_codebook(torch.from_numpy(task.seeds))
    return _fit(quantizer, x, task, method="lloyd", epochs=task.iterations, seeds="codebook")


def residual(x: np.ndarray, task: Task) -> Fitted:
    cell = task.cell
    return _fit(
        quantizers.create("residual", cell.d, codebook_size=cell.k, num_quantizers=cell.codebooks), x, task
    )


def product(x: np.ndarray, task: Task) -> Fitted:
    cell = task.cell
    return _fit(quantizers.create("grouped", cell.d, codebook_size=cell.k, num_groups=cell.codebooks), x, task)


def optimized_product(x: np.ndarray, task: Task) -> Fitted:
    cell = task.cell
    return _fit(quantizers.create("opq", cell.d, codebook_size=cell.k, num_groups=cell.codebooks), x, task)


def streamed(x: np.ndarray, task: Task) -> Fitted:
    """Fit to the file: growing samples, then one pass over all vectors."""
    return _fit(quantizers.create("vq", task.cell.d, codebook_size=task.cell.k), task.path, task, epochs=1)


def _fit(quantizer: quantizers.Quantizer, data: np.ndarray | str, task: Task, **options: object) -> Fitted:
    torch.set_num_threads(task.threads)
    report = quantizers.fit(quantizer, data, seed=task.seed, **options)
    last, cell = task.cell.codebooks - 1, task.cell
    whole = [each for each in report.history if each.phase == WHOLE and each.vectors == cell.n]

    def reconstruct(block: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return quantizer.decode(quantizer.encode(torch.from_numpy(block))).numpy()

    return Fitted(
        codes=quantizer.codebook.detach().numpy() if cell.codebooks == 1 else None,
        reconstruct=reconstruct if cell.codebooks > 1 else None,
        passes=len(whole) + 1 if cell.codebooks == 1 else None,  # one for the report
        # Only of one codebook, and of a residual quantizer's last one, is this the inertia of the whole.
        inertias=tuple(
            (each.seconds, each.inertia)
            for each in whole
            if each.codebook == last and (cell.codebooks == 1 or cell.kind == RESIDUAL)
        ),
        instructions=machine_instructions(),
    )
