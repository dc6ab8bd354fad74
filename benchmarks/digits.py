"""scikit-learn's handwritten digits: 1797 images of 8 × 8 pixels, small enough to model as a whole on two cores.

They are the test half of the UCI data set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998),
with 17 grey levels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

SIDE = 8  # pixels
CLASSES = 10
HELD_OUT = 297  # images; 1500 remain
SPLIT_SEED = 0


class Digits(NamedTuple):
    """Images and labels.

    images  float32 [N, 1, 8, 8] in [−1, 1]; −1 is the paper
    labels  int64 [N], the digit
    """

    images: Tensor
    labels: Tensor


def load() -> tuple[Digits, Digits]:
    """Return the training digits and the held-out digits, split by a fixed seed. A writer may occur in both.

    Raises: ImportError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install quantizers-torch[bench]") from error
    stored = load_digits()
    images = torch.from_numpy(stored.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(stored.target).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held_out, train = order[:HELD_OUT], order[HELD_OUT:]
    return Digits(images[train], labels[train]), Digits(images[held_out], labels[held_out])


def training_batches(images: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield batches [batch_size, ...] without end, drawn with replacement; the sequence depends on the seed
    alone."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield images[torch.randint(len(images), (batch_size,), generator=generator)]
