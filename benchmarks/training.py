"""The training recipe, the same for every quantizer.

Adam runs for a fixed number of steps. Its learning rate falls to zero over the last quarter of them; otherwise
PSNR would depend on the step at which training happens to stop. The loss is the mean squared error of images in
[−1, 1] plus the quantizer's own loss, which is already weighted. Variants may request training aids, see
`aids.py`. By default, a Gumbel quantizer's temperature falls over the run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.aids import Aids
from benchmarks.autoencoder import Autoencoder
from benchmarks.codes import count_codebooks, numbered

USAGE_WINDOW = 50  # steps
FALLING = 0.25  # share of the steps, at the end, during which the learning rate falls

NO_AIDS = Aids()

OnStep = Callable[[int, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class Recipe:
    """All settings that determine the result of a training run, apart from quantizer and data."""

    codebook_size: int = 1024
    dim: int = 32
    steps: int = 1000
    seed: int = 0
    device: str = "cpu"
    batch_size: int = 16
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class Curves:
    """Measurements during training.

    mse         float32 [steps], mean squared error of the batch on the [0, 1] scale
    codes_used  int64 [steps], codes used in the last USAGE_WINDOW steps
    codes_seen  codes used in any step
    """

    mse: torch.Tensor
    codes_used: torch.Tensor
    codes_seen: int


class UsageWindow:
    """Counts the codes used in the last USAGE_WINDOW steps (fewer steps at the start of a run)."""

    def __init__(self, codebook_size: int, device: torch.device) -> None:
        self.last_step = torch.full((codebook_size,), -USAGE_WINDOW, device=device)

    def update(self, step: int, indices: torch.Tensor) -> torch.Tensor:
        """Record the indices of this step, counted from zero, and return the number of codes in use, a 0-d int64
        tensor.
        """
        self.last_step[indices[indices >= 0]] = step
        return (self.last_step > step - USAGE_WINDOW).sum()

    def seen(self) -> int:
        """Return the number of codes used in any step."""
        return int((self.last_step >= 0).sum())


def make_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Return Adam over the trainable parameters. SimVQ's basis, for example, is frozen."""
    return torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=learning_rate)


def learning_rate_schedule(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Return a schedule that is constant, then linear to zero."""
    return LambdaLR(optimizer, lambda step: min(1.0, (steps - step) / (FALLING * steps)))


def training_step(
    model: Autoencoder, optimizer: torch.optim.Optimizer, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run forward, backward and update. Returns the mean squared error on the [0, 1] scale (0-d) and the
    indices."""
    optimizer.zero_grad(set_to_none=True)
    reconstruction, out = model(images)
    mse = nn.functional.mse_loss(reconstruction, images)
    (mse + out.loss).backward()
    optimizer.step()
    return mse.detach() / 4, out.indices  # an interval twice as long has squared errors four times as large


def train(
    model: Autoencoder,
    batches: Iterator[torch.Tensor],
    recipe: Recipe,
    on_step: OnStep,
    aids: Aids = NO_AIDS,
) -> Curves:
    """Train the model in place, with the given training aids.

    `on_step(step, mse, codes_used)` is called after each step, counted from 1. Its two tensors are 0-d and on the
    device, so reading them synchronizes with the device.
    """
    device = torch.device(recipe.device)
    optimizer = make_optimizer(model, recipe.learning_rate)
    learning_rate = learning_rate_schedule(optimizer, recipe.steps)
    quantizer = model.quantizer
    window = UsageWindow(count_codebooks(quantizer) * quantizer.codebook_size, device)
    mse = torch.zeros(recipe.steps, device=device)
    codes_used = torch.zeros(recipe.steps, dtype=torch.int64, device=device)
    batches = aids.start(model, batches, device)
    helpers = [learning_rate, *aids.helpers(model, optimizer, recipe.steps)]
    model.train()
    for step in range(recipe.steps):
        mse[step], indices = training_step(model, optimizer, next(batches).to(device))
        for helper in helpers:
            helper.step()
        codes_used[step] = window.update(step, numbered(indices, quantizer))
        on_step(step + 1, mse[step], codes_used[step])
    return Curves(mse.cpu(), codes_used.cpu(), window.seen())
