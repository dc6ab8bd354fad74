"""The training of all autoencoders here: Adam on mean squared error plus the model's own loss."""

from collections.abc import Iterator

from torch import Tensor, nn

from benchmarks.aids import Aids
from benchmarks.training import NO_AIDS, learning_rate_schedule, make_optimizer


def fit(
    model: nn.Module, batches: Iterator[Tensor], *, steps: int, learning_rate: float, aids: Aids = NO_AIDS
) -> None:
    """Train in place, and leave the model in evaluation mode.

    The learning rate falls as in `benchmarks.training`.

    Args:
        batches: images on the model's device.
        aids: the training aids of the quantizer's variant, see `variants.aids`.
    """
    optimizer = make_optimizer(model, learning_rate)
    schedule = learning_rate_schedule(optimizer, steps)
    device = next(model.parameters()).device
    batches = aids.start(model, batches, device)
    helpers = [schedule, *aids.helpers(model, optimizer, steps)]
    model.train()
    for _ in range(steps):
        images = next(batches)
        out = model(images)
        optimizer.zero_grad(set_to_none=True)
        (nn.functional.mse_loss(out.images, images) + out.loss).backward()
        optimizer.step()
        for helper in helpers:
            helper.step()
    model.eval()
