"""What a picture shows, computed from a quantizer."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import quantizers
from docs._pictures.planes import PLANE, Plane, batch, cloud, maps, pixels, starts
from docs._pictures.settings import Settings, settings_of

DECODER = torch.tensor([0.8, 0.6])
"""The decoder's loss is −g·q for every vector, with this g: it pulls every quantized vector the same way."""
NOTHING = torch.zeros(0, 2)


@dataclass
class Scene:
    """The contents of a picture; coordinates are those of the plane, and what is not drawn is empty.

    Args:
        starts: [N, 2], the vectors z at which arrows start.
        decoder: [N, 2], −∂L/∂z of the decoder's loss. own: the same of the quantizer's own loss, per vector.
        fitted: [n, 2], the points that the quantizer was fitted to.
        cells: int64 [rows, columns], a number for the indices of each pixel; None without codes.
        codes: [M, 2], the decoded values of the indices that occur.
        others: [n, 2], the values in training that are not the codes of their indices.
        scales: [N, S, 2], of a quantizer of maps: the values after the first scale, the first two, and so on.
        batch: [n, 2], the vectors of one training step. moves: [M, 2], how it moves the codes.
    """

    starts: Tensor
    decoder: Tensor = NOTHING
    own: Tensor = NOTHING
    fitted: Tensor = NOTHING
    cells: Tensor | None = None
    codes: Tensor = NOTHING
    others: Tensor = NOTHING
    scales: Tensor = NOTHING
    batch: Tensor = NOTHING
    moves: Tensor = NOTHING


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Draw the same random numbers each time, and leave the default generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@seeded()
def build(name: str) -> quantizers.Quantizer:
    """The quantizer of a picture: created with its settings, and fitted to the grey points."""
    settings = settings_of(name)
    quantizer = quantizers.create(name, dim=settings.plane.dim, **settings.options)
    data = training_data(quantizer, settings.plane)
    if quantizer.initializes_from_data:
        quantizer.initialize_from(data)
    train(quantizer, data, settings.steps)
    return quantizer


def training_data(quantizer: quantizers.Quantizer, plane: Plane) -> Tensor:
    """What the quantizer is fitted to: the grey points, or maps for a quantizer of maps."""
    return plane.embed(cloud() if quantizer.per_vector else maps())


def train(quantizer: quantizers.Quantizer, data: Tensor, steps: int) -> None:
    """Train the quantizer to reconstruct the data: mean (value − x)² plus its own loss."""
    parameters = list(quantizer.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.01) if parameters else None
    for _ in range(steps):
        quantized, _, loss = quantizer(data)
        if optimizer is not None:
            optimizer.zero_grad()
            ((quantized - data).square().mean() + loss).backward()
            optimizer.step()


def compute(name: str, columns: int = 828, rows: int = 552) -> Scene:
    """The scene of a registered method, with this many pixels for its cells."""
    quantizer = build(name)
    if not quantizer.per_vector:
        return scene_of_a_map(quantizer)
    return scene_of_points(quantizer, settings_of(name), columns, rows)


def scene_of_points(quantizer: quantizers.Quantizer, settings: Settings, columns: int, rows: int) -> Scene:
    """The scene of a quantizer that quantizes each vector by itself."""
    plane = settings.plane
    was_fitted = quantizer.initializes_from_data or settings.steps
    scene = Scene(starts=starts(), fitted=cloud() if was_fitted else NOTHING)
    if quantizer.codebook_size:
        scene.cells, indices = cells_of(quantizer, plane.embed(pixels(columns, rows)))
        scene.codes = plane.project(quantizer.decode(indices)).detach()
        moves = moves_of(quantizer, plane, indices)
        if settings.code_steps and moves.abs().max() > 0:
            scene.batch, scene.moves = batch(), moves
    z = plane.embed(scene.starts).requires_grad_()
    quantized, indices = add_arrows(scene, quantizer, plane, z)
    if quantizer.codebook_size:
        codes = quantizer.decode(indices)  # of the quantizer before the forward in training
        scene.others = plane.project(quantized[~torch.isclose(quantized, codes, atol=1e-5).all(-1)])
    return scene


def scene_of_a_map(quantizer: quantizers.Quantizer) -> Scene:
    """The scene of a quantizer of maps: what one map becomes, scale by scale."""
    z = maps(1).requires_grad_()
    scene = Scene(starts=z.detach().reshape(-1, 2))
    _, indices = add_arrows(scene, quantizer, PLANE, z)
    scene.scales = partial_values(quantizer, indices, tuple(z.shape[1:-1]))
    return scene


def cells_of(quantizer: quantizers.Quantizer, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """A number for the indices of each vector [rows, columns, D], and the indices that these numbers stand for."""
    indices = quantizer.encode(vectors)
    shape = vectors.shape[:2]
    different, numbers = indices.reshape(shape[0] * shape[1], -1).unique(dim=0, return_inverse=True)
    return numbers.reshape(shape), different if indices.ndim > 2 else different[:, 0]


@seeded()
def add_arrows(scene: Scene, quantizer: quantizers.Quantizer, plane: Plane, z: Tensor) -> tuple[Tensor, Tensor]:
    """Set the gradients of one forward in training at vectors z; `quantizer` itself is not trained.

    The quantizer's loss is a mean over vectors, so its gradient is multiplied by their number.

    Returns: the quantized vectors, detached, and their indices.
    """
    quantized, indices, loss = copy.deepcopy(quantizer).train()(z)
    (decoder,) = torch.autograd.grad(decoder_loss(plane.project(quantized)).sum(), z, retain_graph=True)
    own = torch.autograd.grad(loss, z, allow_unused=True)[0] if loss.requires_grad else None
    scene.decoder = -plane.project(decoder).reshape(-1, 2)
    if own is not None:
        scene.own = -plane.project(own).reshape(-1, 2) * len(scene.starts)
    return quantized.detach(), indices


def decoder_loss(values: Tensor) -> Tensor:
    """The loss [...] of quantized vectors [..., 2] in the plane: −g·q, with the same g for all of them."""
    return -(values * DECODER).sum(-1)


def partial_values(quantizer: quantizers.Quantizer, indices: Tensor, size: tuple[int, ...]) -> Tensor:
    """[N, S, 2]: the values of a map's vectors after the first scale, the first two, and so on."""
    lengths = torch.tensor([part.numel() for part in quantizer.split(indices, size)]).cumsum(0).tolist()
    values = [quantizer.decode(indices[:, :length], size) for length in lengths]
    return torch.stack(values, -2).detach().reshape(-1, len(values), 2)


@seeded()
def moves_of(quantizer: quantizers.Quantizer, plane: Plane, indices: Tensor, rate: float = 1e-3) -> Tensor:
    """[M, 2]: how one training step on the squares moves the decoded values of `indices`, in any unit.

    The step is one of SGD on the decoder's loss plus the quantizer's own, and what a forward in training moves.
    """
    moved = copy.deepcopy(quantizer).train()
    before = plane.project(quantizer.decode(indices))
    quantized, _, loss = moved(plane.embed(batch()))
    parameters = [parameter for parameter in moved.parameters() if parameter.requires_grad]
    if parameters:
        (loss + decoder_loss(plane.project(quantized)).mean()).backward()
        torch.optim.SGD(parameters, lr=rate).step()
    return (plane.project(moved.decode(indices)) - before).detach()
