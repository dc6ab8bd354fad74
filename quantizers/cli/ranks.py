"""The processes that torchrun starts: one group, of which the first process prints and writes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed as dist


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """A process group inside the block, if torchrun started this process."""
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def find_device(name: str) -> torch.device:
    """The device of that name; under torchrun, "cuda" is the GPU of the process's local rank.

    Raises: ValueError for a device that does not exist or cannot compute.
    """
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.ones(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device: {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def is_first() -> bool:
    """Whether this process prints and writes."""
    return _rank() == 0


def rank_label() -> str:
    """ "rank 3: " on a process that otherwise prints nothing."""
    return "" if is_first() else f"rank {_rank()}: "


def of_all_ranks(value: str | None) -> list[str | None]:
    """The value of every rank, in their order."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _rank() -> int:
    """The rank of this process, also before and after there is a process group."""
    return int(os.environ.get("RANK", "0")) if dist.is_torchelastic_launched() else 0
