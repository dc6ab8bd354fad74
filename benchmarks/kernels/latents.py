"""Latents of the benchmark's autoencoder and the codes that it learned for them in a brief training, on disk.

The recipe is that of `python -m benchmarks utilization` with fewer steps. Codes that are not used are replaced
after about 45 steps rather than 230, so that they are replaced at all.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from benchmarks import data, machine, variants
from benchmarks.aids import Aids
from benchmarks.autoencoder import DOWNSAMPLING, Autoencoder, build
from benchmarks.crops import random_crops, training_batches
from benchmarks.data import TILE, Photographs
from benchmarks.files import write_bytes
from benchmarks.kernels.shapes import Shape
from benchmarks.training import Recipe, train
from quantizers import DeadCodeReplacement

DECAY = 0.95  # of the running use of a code, per step
VECTORS_PER_CROP = (TILE // DOWNSAMPLING) ** 2
ENCODED = 64  # crops that the encoder gets at once


class BriefAids(Aids):
    """The training aids of a variant, with a replacement that acts within a brief training."""

    def replacement(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> DeadCodeReplacement | None:
        return DeadCodeReplacement(model, optimizer, decay=DECAY) if self.replace else None


@dataclass(frozen=True)
class Latents:
    """A training, and what is kept of it.

    variant   the quantizer and its training aids, as in variants.py
    shape     of the vectors, from crops that training did not see, and of the codebook
    steps     of training
    further   number of latents that are kept beside these vectors, from other crops
    """

    variant: str
    shape: Shape
    steps: int
    further: int = 0

    @property
    def name(self) -> str:
        return f"{variants.base_name(self.variant)} {self.shape}"

    def load(self, folder: Path) -> dict[str, Tensor]:
        """Return "x" [N, D], "codebook" [K, D] and "further" [further, D] from `folder`; train if they are not
        there."""
        photographs = data.bundled()
        key = self._key(photographs)
        path = folder / f"{variants.file_name(self.name)}.npz"
        stored = _read(path, key)
        if stored is None:
            stored = self._make(photographs)
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, key, stored)
        return stored

    def _key(self, photographs: Photographs) -> str:
        """Return a digest of what determines the vectors. A change of the library makes them no less real."""
        source = Path(__file__).read_text()
        return hashlib.sha256(
            f"{self} {photographs.describe()} {machine.versions()} {source}".encode()
        ).hexdigest()

    def _recipe(self) -> Recipe:
        return Recipe(codebook_size=self.shape.k, dim=self.shape.d, steps=self.steps)

    def _make(self, photographs: Photographs) -> dict[str, Tensor]:
        recipe = self._recipe()
        model = build(self.variant, dim=recipe.dim, codebook_size=recipe.codebook_size, seed=recipe.seed)
        batches = training_batches(photographs.train, recipe.batch_size, recipe.seed)
        brief = BriefAids(**vars(variants.aids(self.variant)))
        train(model, batches, recipe, lambda step, mse, codes_used: None, brief)
        vectors = encoded(model, photographs, self.shape.n + self.further)
        x, further = vectors.split([self.shape.n, self.further])
        return {"x": x.clone(), "codebook": model.quantizer.codebook.detach().clone(), "further": further.clone()}


@torch.no_grad()
def encoded(model: Autoencoder, photographs: Photographs, count: int) -> Tensor:
    """Return `count` latents [count, D] of random crops of the training photographs."""
    generator = torch.Generator().manual_seed(1)  # Recipe's seed is 0
    model.eval()
    found: list[Tensor] = []
    for _ in range(-(-count // (ENCODED * VECTORS_PER_CROP))):
        latents = model.encoder(random_crops(photographs.train, ENCODED, generator))
        found.append(latents.movedim(1, -1).flatten(0, -2))
    return torch.cat(found)[:count]


def _write(path: Path, key: str, tensors: dict[str, Tensor]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, key=np.array(key), **{name: tensor.numpy() for name, tensor in tensors.items()})
    write_bytes(path, buffer.getvalue())


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    """Return the stored tensors; None if there are none with this key or the file is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as stored:
            if str(stored["key"]) != key:
                return None
            return {name: torch.from_numpy(stored[name]) for name in ("x", "codebook", "further")}
    except (OSError, ValueError, KeyError, BadZipFile):
        return None
