"""A small transformer on bytes of text, and changes to the keys and values that it caches."""

import functools
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.models.attention import AttentionBlock
from benchmarks.models.transformer import Transformer
from benchmarks.search.settings import Caching

BYTES = 256
LARGEST_GRADIENT = 1.0
HELD_OUT_EVERY = 10  # of the files
Change = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]


class Projections(NamedTuple):
    """The queries, keys and values of one layer, each [B, heads, T, channels]."""

    query: Tensor
    key: Tensor
    value: Tensor

    def attend(self) -> Tensor:
        """Return the causal attention's output, [B, heads, T, channels]."""
        return F.scaled_dot_product_attention(*self, is_causal=True)


@lru_cache(maxsize=1)
def text() -> tuple[Tensor, Tensor]:
    """Return the bytes of the modules of Python's standard library: uint8, of training and of held-out files."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    parts = [
        b"".join(p.read_bytes() for i, p in enumerate(paths) if (i % HELD_OUT_EVERY == 0) is held_out)
        for held_out in (False, True)
    ]
    train, held_out = (torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in parts)
    return train, held_out


def windows(source: Tensor, count: int, settings: Caching, generator: torch.Generator) -> Tensor:
    """Cut windows at random positions, as codes int64 [count, 1, length, 1]."""
    starts = torch.randint(len(source) - settings.length, (count, 1), generator=generator)
    return source[starts + torch.arange(settings.length)].long()[:, None, :, None]


def train(settings: Caching) -> Transformer:
    """Train by Adam, with a learning rate that falls to zero."""
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    model = Transformer(
        [BYTES], settings.width, layers=settings.layers, heads=settings.heads, largest=(1, settings.length)
    )
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(settings.steps, 1))
    for _ in range(settings.steps):
        optimizer.zero_grad()
        bits = model.bits(windows(text()[0], settings.batch_size, settings, generator))
        (bits.mean() / settings.length).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
    return model.eval()


@contextmanager
def changed(model: Transformer, change: Change) -> Iterator[None]:
    """Inside the block, each layer attends to `change(layer, key, value)` and not to its keys and values."""
    try:
        for layer, block in enumerate(model.blocks):
            block.project = functools.partial(_project, block.project, layer, change)
        yield
    finally:
        for block in model.blocks:
            vars(block).pop("project", None)


@torch.no_grad()
def projections(model: Transformer, codes: Tensor) -> list[Projections]:
    """Return the queries, keys and values of each layer for windows of text."""
    found: list[Projections] = []
    hooks = [
        block.register_forward_pre_hook(lambda block, given: found.append(_of(block, given[0])))
        for block in model.blocks
    ]
    try:
        model(codes)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _of(block: AttentionBlock, tokens: Tensor) -> Projections:
    return Projections(*block.project(tokens))


def _project(
    original: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], layer: int, change: Change, tokens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = original(tokens)
    return query, *change(layer, key, value)
