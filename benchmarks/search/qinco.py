"""A short training of QINCo by gradient, from the k-means start of its codebooks."""

from collections.abc import Callable

import torch
from torch import Tensor

import quantizers

HIDDEN_DIM, BLOCKS = 64, 1  # small: encoding evaluates the network for every code of every stage
LEARNING_RATE = 1e-3


def train(
    vectors: Tensor, codebooks: int, codebook_size: int, *, steps: int, batch_size: int, seed: int
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Train by Adam, with a learning rate that falls to zero, on batches drawn from vectors [n, D].

    The vectors are divided by their standard deviation, so that one learning rate suits all data.

    Returns: functions that encode vectors [m, D] to int64 [m, codebooks], and decode these.
    """
    torch.manual_seed(seed)
    scale = vectors.std()
    quantizer = quantizers.create(
        "qinco",
        vectors.shape[1],
        codebook_size,
        num_quantizers=codebooks,
        hidden_dim=HIDDEN_DIM,
        blocks=BLOCKS,
        commitment_weight=0.0,  # there is no encoder to commit
    )
    quantizer.initialize_from(vectors / scale)
    optimizer = torch.optim.Adam(quantizer.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in range(steps):
        batch = vectors[torch.randint(len(vectors), (batch_size,))] / scale
        optimizer.zero_grad()
        quantizer(batch).loss.backward()
        optimizer.step()
        schedule.step()
    quantizer.eval()

    @torch.no_grad()
    def decode(indices: Tensor) -> Tensor:
        decoded: Tensor = quantizer.decode(indices) * scale
        return decoded

    return lambda x: quantizer.encode(x / scale), decode
