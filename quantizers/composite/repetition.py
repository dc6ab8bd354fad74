"""Quantizers of one kind, built from one line of options."""

from collections.abc import Callable

from quantizers.core.base import Quantizer

STAGE_OPTIONS = "options('vq') lists them for quantizer='vq'"


def repeated(build: Callable[[], Quantizer], count: int, shared: bool) -> list[Quantizer]:
    """`count` quantizers: one object `count` times if they share it, else each built anew."""
    return [build()] * count if shared else [build() for _ in range(count)]
