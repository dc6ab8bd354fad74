"""A small autoencoder around a quantizer, and what tests compare of it."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from quantizers import EMAVectorQuantizer
from tests.cases import CASES, DIM, Case

CHANNELS = 6
RATE = 0.1


def depends_on_shards(case: Case) -> bool:
    """Whether a step on shards differs from a step on the whole batch: by draws, or by a batch's statistics.

    A loss that all ranks share is a statistic of the whole batch.
    """
    sample = case.sample
    loss_of_shard = sample.loss_depends_on_batch and not case.shared_losses
    return sample.draws_in_training or loss_of_shard or sample.index_depends_on_batch


# Those whose forward moves state by sums over the vectors of all ranks alone.
EMA_CASES = [
    case
    for case in CASES
    if isinstance(case.sample, EMAVectorQuantizer)
    and case.sample.observes
    and not case.sample.loss_depends_on_batch
]
# One process takes the shards one by one where a step depends on them, and would move averages after each.
WHOLE_CASES = [case for case in CASES if not (case.moving_averages and depends_on_shards(case))]


class Autoencoder(nn.Module):
    """x [N, CHANNELS] → its loss, 0-d: mean squared error and the quantizer's own."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.encoder = nn.Linear(CHANNELS, DIM)
        self.quantizer = case.build()
        self.decoder = nn.Linear(DIM, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        quantized, _, loss = self.quantizer(self.encoder(x))
        return F.mse_loss(self.decoder(quantized), x) + loss


def shards(seed: int, size: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """A batch of the autoencoder, eight vectors for each of `size` ranks."""
    x = torch.randn(8 * size, CHANNELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).chunk(size)


def descend(model: nn.Module) -> None:
    """One step of plain gradient descent, on sharded parameters too."""
    torch.optim.SGD(model.parameters(), RATE).step()
    model.zero_grad()


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer, whole where FSDP has sharded it, under the plain model's names."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name.removeprefix("module."): _whole(tensor).clone() for name, tensor in tensors.items()}


@torch.no_grad()
def write_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a plain model the state that `whole_state` returned."""
    for name, tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        tensor.copy_(state[name])


def _whole(tensor: Tensor) -> Tensor:
    return tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()
