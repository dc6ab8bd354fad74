"""This library's methods, each as a user would create, fit and call it."""

from typing import Any

from torch import Tensor

import quantizers
from benchmarks.search import qinco
from benchmarks.search.coders import OURS, Coder, Method, Task

GREEDY, BEAM = "residual, greedy", "residual, beam"


def fitted(name: str, vectors: Tensor, seed: int, **options: Any) -> quantizers.Quantizer:
    """Create a quantizer, and fit its codebooks to vectors [n, D]."""
    quantizer = quantizers.create(name, vectors.shape[1], **options)
    quantizers.fit(quantizer, vectors, seed=seed)
    return quantizer.eval()


def residual(task: Task) -> list[Coder]:
    """One residual quantizer, and two searches for its codes."""
    sizes = {"num_quantizers": task.codebooks, "codebook_size": task.settings.codebook_size}
    quantizer: Any = fitted("residual", task.train, task.seed, **sizes)

    def encode_by_beam(x: Tensor) -> Tensor:
        indices: Tensor = quantizer.encode(x, beam_width=task.settings.beam_width)
        return indices

    return [Coder(GREEDY, quantizer.encode, quantizer.decode), Coder(BEAM, encode_by_beam, quantizer.decode)]


def grouped(task: Task) -> list[Coder]:
    return [_of_groups("grouped", "product", task)]


def opq(task: Task) -> list[Coder]:
    return [_of_groups("opq", "rotated product", task)]


def implicit(task: Task) -> list[Coder]:
    """QINCo, trained by gradient."""
    settings = task.settings
    encode, decode = qinco.train(
        task.train,
        task.codebooks,
        settings.codebook_size,
        steps=settings.qinco_steps,
        batch_size=settings.qinco_batch,
        seed=task.seed,
    )
    return [Coder("QINCo", encode, decode)]


def _of_groups(name: str, shown: str, task: Task) -> Coder:
    sizes = {"num_groups": task.codebooks, "codebook_size": task.settings.codebook_size}
    quantizer = fitted(name, task.train, task.seed, **sizes)
    return Coder(shown, quantizer.encode, quantizer.decode)


METHODS = (
    Method(OURS, "residual", residual),
    Method(OURS, "grouped", grouped),
    Method(OURS, "opq", opq),
    Method(OURS, "qinco", implicit, slow=True),
)
