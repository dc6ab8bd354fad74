"""Checks of codes and sizes for the priors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.errors import InputError
from quantizers.core.arguments.checks import check_at_least


def check_sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the codebook sizes, n ≥ 1 numbers K ≥ 1, as a tuple. Raises: ValueError."""
    if not sizes:
        raise ValueError(f"{name} is empty, expected the number of codes of each codebook")
    return tuple(check_at_least(f"each of {name}", size, 1) for size in sizes)


def check_codes(name: str, codes: Tensor, sizes: Sequence[int]) -> None:
    """Check for codes [B, h, w, n] int64 on a non-empty grid, each below its codebook's size. Raises:
    InputError."""
    _check_integers(name, codes)
    if codes.dim() != 4 or codes.shape[-1] != len(sizes) or 0 in codes.shape[1:]:
        raise InputError(
            f"{name} have shape {tuple(codes.shape)}, expected [B, h, w, {len(sizes)}]: "
            f"a grid that is not empty, then {len(sizes)} codebooks"
        )
    _check_range(name, codes, sizes)


def check_next(name: str, codes: Tensor, batch: int, size: int) -> None:
    """Check for one code per image, [batch] int64 in [0, size). Raises: InputError."""
    _check_integers(name, codes)
    if codes.shape != (batch,):
        raise InputError(f"{name} have shape {tuple(codes.shape)}, expected ({batch},), one for each image")
    _check_range(name, codes[:, None], (size,))


def check_tokens(name: str, tokens: Tensor, length: int, size: int) -> None:
    """Check for tokens [B, length] int64 in [0, size). Raises: InputError."""
    _check_integers(name, tokens)
    if tokens.dim() != 2 or tokens.shape[1] != length:
        raise InputError(f"{name} have shape {tuple(tokens.shape)}, expected [B, {length}]")
    _check_range(name, tokens[..., None], (size,))


def check_grid(height: int, width: int, largest: Sequence[int]) -> None:
    """Check that a transformer has embeddings for all positions of a grid. Raises: InputError."""
    if height > largest[0] or width > largest[1]:
        raise InputError(
            f"the grid is {height} × {width}, expected at most {largest[0]} × {largest[1]}: "
            "this transformer has no embeddings for further positions"
        )


def check_evaluation(prior: nn.Module) -> None:
    """Check that the prior is in evaluation mode. Raises: RuntimeError."""
    if prior.training:
        raise RuntimeError("the prior is in training mode, where dropout changes the steps: call eval() first")


def _check_integers(name: str, codes: Tensor) -> None:
    if codes.dtype != torch.int64:
        raise InputError(f"{name} have dtype {codes.dtype}, expected torch.int64")


def _check_range(name: str, codes: Tensor, sizes: Sequence[int]) -> None:
    wrong = (codes < 0) | (codes >= torch.tensor(sizes, device=codes.device))
    if not wrong.any():
        return
    where = wrong.nonzero()[0]
    code, size = int(codes[tuple(where)]), sizes[int(where[-1])]
    what = f"{name} hold {code}" + (f" in codebook {int(where[-1])}" if len(sizes) > 1 else "")
    why = ", which marks a vector without a code (masked or not finite)" if code == -1 else ""
    raise InputError(f"{what}{why}: expected 0 to {size - 1}")
