"""Small pictures, and an autoencoder for them that trains in seconds."""

import torch
from torch import Tensor, nn

import quantizers
from quantizers import Quantizer


def pictures(count: int, seed: int) -> Tensor:
    """Two bright spots at random places, of random sizes: [count, 1, 16, 16]."""
    draws = torch.Generator().manual_seed(seed)
    grid = torch.linspace(-1, 1, 16)
    places = torch.rand(count, 2, 2, generator=draws) * 1.6 - 0.8
    sizes = torch.rand(count, 2, 1, 1, generator=draws) * 0.3 + 0.1
    rows = (grid[:, None] - places[..., 0, None, None]).square()
    columns = (grid - places[..., 1, None, None]).square()
    return (-(rows + columns) / (2 * sizes.square())).exp().sum(1, keepdim=True)


class Autoencoder(nn.Module):
    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 8, 1)
        )
        self.quantizer = quantizer
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(8, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, quantizers.QuantizerOutput]:
        out = self.quantizer(self.encoder(x))
        return self.decoder(out.quantized), out


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    """The training loss on a batch of pictures."""
    y, out = model(x)
    return (y - x).square().mean() + out.loss


def trained(quantizer: Quantizer, *, steps: int = 300, replaces: bool = False) -> Autoencoder:
    """An autoencoder after some steps of Adam on new pictures; with DeadCodeReplacement if it `replaces`."""
    torch.manual_seed(0)
    model = Autoencoder(quantizer)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    replacement = quantizers.DeadCodeReplacement(model, optimizer) if replaces else None
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, pictures(32, 1000 + step)).backward()
        optimizer.step()
        if replacement is not None:
            replacement.step()
    return model


def held_out() -> list[Tensor]:
    return [pictures(64, seed) for seed in range(8)]
