"""A warning about a codebook that training hardly uses, once per process.

Counting must not disturb what a forward promises. So it happens on a CPU only, where nothing waits for a device,
and never in a compiled, traced, exported or transformed forward. It looks at a hundred forwards in a thousand, the
first time after five hundred: by then DeadCodeReplacement with its defaults has replaced what was unused from the
start. The counts live beside the quantizers, not in them: copies, pickles and state dicts know nothing of them.
"""

import warnings
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils import _python_dispatch as dispatch

from quantizers.core.code_hooks import ForwardEvent
from quantizers.core.recompute import is_recomputing
from quantizers.kernels.common.modes import is_transformed

PERIOD = 1000
FIRST, LAST = 500, 600
"""Training forwards, modulo `PERIOD`, from which and before which indices are counted."""
LEAST_SHARE = 0.05
"""The share of the codes below which a codebook is hardly used. The baseline VQ of `make bench` uses 2 to 3 %."""
VECTORS_PER_CODE = 10
"""The fewest vectors per code to judge by: of equally likely codes, e⁻¹⁰ would remain unused."""
LARGEST = 2**20
"""The most codes, in all codebooks together, that are counted."""
MORE = (
    "print(quantizers.diagnose(model, batches)) says more, and so does docs/troubleshooting.md#dead-codes. "
    "quantizers.warn_unused_codes(False) switches this warning off."
)


class _Seen:
    """What the training forwards of one quantizer chose."""

    def __init__(self) -> None:
        self.forwards = 0
        self.vectors = 0
        self.used: list[Tensor] = []  # for each codebook, bool [1 + K]; the first slot is for index −1


_enabled = True
_warned = False
_seen: WeakKeyDictionary[Any, _Seen] = WeakKeyDictionary()


def warn_unused_codes(enabled: bool = True) -> None:
    """Switch the warning about unused codes on or off, for this process. It is on at the start.

    It comes at most once per process, in training on a CPU, if under 5 % of the codes of a learned codebook were
    chosen in 100 successive forwards with at least ten vectors per code. On a GPU it never comes, because a
    forward must not wait for the device; `quantizers.diagnose` looks at any model. Switching it on lets it come
    once more.

        >>> import quantizers
        >>> quantizers.warn_unused_codes(False)
    """
    global _enabled, _warned
    _enabled, _warned = enabled, False
    _seen.clear()


def look_for_unused_codes(quantizer: Any, event: ForwardEvent) -> None:
    """Note a forward in training, count its indices if it is their turn, and warn if most codes are unused."""
    if not _enabled or _warned or not quantizer.initializes_from_data or quantizer.frozen:
        return
    seen = _seen.get(quantizer)
    if seen is None:
        seen = _seen[quantizer] = _Seen()
    position = seen.forwards % PERIOD
    seen.forwards += 1
    if FIRST <= position < LAST and _is_plain(event.indices) and sum(quantizer.codebook_sizes) <= LARGEST:
        _count(seen, quantizer, event, anew=position == FIRST)
        if position == LAST - 1:
            _judge(seen, quantizer)


def _is_plain(indices: Tensor) -> bool:
    """Whether this is an ordinary forward on a CPU, whose values may be looked at."""
    if indices.device.type != "cpu" or type(indices) is not Tensor or torch._C._get_tracing_state() is not None:
        return False
    return not is_transformed() and dispatch._get_current_dispatch_mode() is None and not is_recomputing(indices)


def _count(seen: _Seen, quantizer: Any, event: ForwardEvent, *, anew: bool) -> None:
    if anew or not seen.used:
        with torch.inference_mode(False):
            seen.used = [
                torch.zeros(1 + size, dtype=torch.bool, device="cpu") for size in quantizer.codebook_sizes
            ]
        seen.vectors = 0
    columns = quantizer.indices_by_codebook(event.indices, event.x, event.sizes)
    for used, column in zip(seen.used, columns, strict=False):
        used[1 + column.reshape(-1)] = True
    seen.vectors += min(column.numel() for column in columns)


def _judge(seen: _Seen, quantizer: Any) -> None:
    """Warn about the first codebook that is hardly used; one that serves several positions counts once."""
    global _warned
    used, seen.used = seen.used, []
    if seen.vectors < VECTORS_PER_CODE * max(quantizer.codebook_sizes):
        return
    if len(getattr(quantizer, "order", ())) > len(getattr(quantizer, "quantizers", ())):
        used = [torch.stack(used).any(0)] if len({len(each) for each in used}) == 1 else []
    for number, each in enumerate(used):
        count, size = int(each[1:].sum()), len(each) - 1
        if count < LEAST_SHARE * size:
            _warned = True
            where = (
                f"Codebook {number} of {type(quantizer).__name__}" if len(used) > 1 else type(quantizer).__name__
            )
            warnings.warn(
                f"{where} used {count} of {size} codes in its last {LAST - FIRST} training forwards, with "
                f"{seen.vectors} vectors. {_remedy(quantizer)} {MORE}",
                RuntimeWarning,
                stacklevel=2,
            )
            return


def _remedy(quantizer: Any) -> str:
    if any(getattr(module, "has_table", False) for module in quantizer.modules()):
        return (
            "Unused codes get no gradient and stay unused; replace them: replacement = quantizers."
            "DeadCodeReplacement(model, optimizer), and replacement.step() after each optimizer.step()."
        )
    return "Start the codes from the vectors: quantizers.warm_start(model, batches)."
