"""A codebook that moves by a small step between two searches, as an optimizer moves it in training.

The step is about what EMA VQ makes with a decay of 0.99, which moves a code by a hundredth of its distance to the
mean of its vectors.
"""

import torch
from torch import Tensor

STEP = 0.01  # of the root mean square distance between vectors and their codes
SAMPLE = 256  # vectors that estimate this distance
STRIDE = 7919  # a prime: codes between those that get the same noise in successive steps


def step_length(x: Tensor, codebook: Tensor) -> float:
    """Return how far each code moves in a step."""
    distances = torch.cdist(x[:SAMPLE], codebook, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    return STEP * float(distances.square().mean().sqrt())


class Moving:
    """Codes that move in place, each by `length` in a direction of its own.

    Args: codes [..., K, D], contiguous. length: of each code's move.
    """

    def __init__(self, codes: Tensor, length: float) -> None:
        self.codes = codes
        rows = codes.view(-1, codes.shape[-1])
        noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
        self._rows, self._noise = rows, (length * torch.nn.functional.normalize(noise)).to(codes.device)
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Move the codes, except the first time: the first run gets the codebook as it was given."""
        if self._steps:
            first = self._steps * STRIDE % len(self._rows)
            self._rows[first:] += self._noise[: len(self._noise) - first]
            self._rows[:first] += self._noise[len(self._noise) - first :]
        self._steps += 1
