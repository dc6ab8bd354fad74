"""Sums over batches, from which the measures of a quantizer follow."""

import math

import torch
from torch import Tensor

from quantizers.composite.composed import has_codes
from quantizers.composite.pyramid_quantizer import PyramidQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.diagnosis.measures import Drawn, Measures
from quantizers.diagnosis.moments import Moments, Sample
from quantizers.diagnosis.pieces import Piece, bits_per_vector, map_values
from quantizers.diagnosis.rate import attainable_share
from quantizers.diagnosis.spaces import approximated, code_space, compared, digits
from quantizers.kernels.common.wide import wide
from quantizers.monitoring import metrics
from quantizers.scalar.grid import GridQuantizer

MOST_COUNTED = 2**24
"""The largest codebook whose codes are counted one by one: 128 MiB."""
MOST_LEVELS = 1024
"""The most levels of a channel that are counted."""


class Tally:
    """What the batches say about one quantizer; `Codebook` says what they say about each of its codebooks."""

    def __init__(self, piece: Piece) -> None:
        quantizer = piece.quantizer
        self.quantizer = quantizer
        self.where = piece.where
        self.shared = piece.shared
        self.bits = bits_per_vector(quantizer, piece.rows)
        self.vectors = Moments()
        self.lost = 0.0
        self.before = self.after = 0.0
        self.sample = Sample()
        self.codebooks = [] if _has_parts(quantizer) else [Codebook(size) for size in quantizer.codebook_sizes]
        self.levels = _new_levels(quantizer)

    def add(self, piece: Piece) -> None:
        """Include what a batch sent through the quantizer."""
        quantizer = piece.quantizer
        if isinstance(quantizer, PyramidQuantizer):
            self._approximate(*map_values(quantizer, piece.rows, piece.indices))
            return
        chosen = has_codes(piece.indices) & piece.rows.valid
        rows = piece.rows.with_vectors(piece.rows.vectors[chosen], piece.rows.valid[chosen])
        indices = piece.indices[chosen]
        if not len(indices) or not isinstance(quantizer, RowQuantizer):
            return
        z = code_space(quantizer, rows)
        target = approximated(quantizer, z)
        values = quantizer._decode(indices).to(z.dtype)
        if target is not None:
            self._approximate(target, values)
        if piece.after_others:
            left = rows.vectors - quantizer.decode_rows(indices)
            self.before += float(wide(rows.vectors).square().sum())
            self.after += float(wide(left).square().sum())
        if isinstance(quantizer, GridQuantizer) and self.levels is not None:
            _count_levels_(self.levels, digits(quantizer, indices))
        if self.codebooks:
            columns = indices.unbind(-1) if quantizer.composed else (indices,)
            pair = compared(quantizer, z)
            for number, (codebook, column) in enumerate(zip(self.codebooks, columns, strict=False)):
                codebook.add(column, None if pair is None else (pair[0][number], pair[1][number]))

    def _approximate(self, target: Tensor, values: Tensor) -> None:
        self.vectors.add(target)
        self.lost += float((wide(target) - wide(values)).square().sum())
        self.sample.add(target, values)

    def measures(self, name: str, not_finite: int) -> list[Measures]:
        """The measures of the quantizer, then those of its codebooks if it has several."""
        quantizer = self.quantizer
        sampled = self.sample.tensors()
        weight = getattr(quantizer, "commitment_weight", None)
        lost = self.lost / (self.vectors.variance * self.vectors.count) if self.vectors.variance else None
        single = self.codebooks[0] if len(self.codebooks) == 1 else None
        count = single.vectors_seen if single else self.vectors.count
        own = {
            "codebook_size": None,
            "vector_spread": self.vectors.spread if self.vectors.count else None,
            "vector_norm": self.vectors.norm if self.vectors.count else None,
            **(single.measured() if single else {}),
        }
        whole = Measures(
            name=name,
            part=" / ".join(self.where),
            bits=self.bits,
            code_dim=quantizer.code_dim,
            vectors=count or sum(codebook.vectors_seen for codebook in self.codebooks[:1]),
            not_finite=not_finite,
            lost=lost,
            attainable=attainable_share(sampled[0], self.bits) if sampled else None,
            commitment=lost if weight else None,
            commitment_weight=weight,
            left=self.after / self.before if self.before else None,
            levels=None if self.levels is None else tuple(tuple(each.tolist()) for each in self.levels),
            shared=self.shared,
            quantizer=quantizer,
            drawn=self._drawn(single),
            **own,  # type: ignore[arg-type]
        )
        return [whole, *([] if single else self._by_codebook(name))]

    def _by_codebook(self, name: str) -> list[Measures]:
        return [
            Measures(
                name=name,
                part=" / ".join([*self.where, f"codebook {number}"]),
                bits=math.log2(codebook.size),
                code_dim=self.quantizer.code_dim,
                vectors=codebook.vectors_seen,
                not_finite=0,
                shared=self.shared,
                quantizer=self.quantizer,
                drawn=codebook.drawn(),
                **codebook.measured(),  # type: ignore[arg-type]
            )
            for number, codebook in enumerate(self.codebooks)
        ]

    def _drawn(self, single: "Codebook | None") -> Drawn | None:
        if single is not None and (drawn := single.drawn()) is not None:
            return drawn
        if single is None or not self.sample.tensors():
            return None
        vectors, values = self.sample.tensors()
        return Drawn(vectors, torch.unique(values, dim=0), single.counts)


class Codebook:
    """What the batches say about the codes of one codebook."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.vectors = Moments()
        self.sample = Sample()
        self.counts = torch.zeros(size, dtype=torch.int64, device="cpu") if size <= MOST_COUNTED else None
        self.vectors_seen = 0
        self.codes: Tensor | None = None

    def add(self, indices: Tensor, pair: tuple[Tensor, Tensor] | None) -> None:
        """Include indices [n], and the vectors [n, D] and codes [K, D] that were compared."""
        has_code = indices >= 0
        indices = indices[has_code]
        self.vectors_seen += len(indices)
        if self.counts is not None:
            self.counts += indices.bincount(minlength=self.size).cpu()
        if pair is not None:
            vectors, self.codes = pair
            self.vectors.add(vectors[has_code])
            self.sample.add(vectors[has_code])

    def measured(self) -> dict[str, object]:
        """Arguments of `Measures`."""
        found: dict[str, object] = {"codebook_size": self.size}
        if self.counts is not None and self.vectors_seen:
            used = int((self.counts > 0).sum())
            found |= {
                "codes_in_use": used,
                "dead_codes": self.size - used,
                "perplexity": metrics.perplexity(self.counts),
                "possible_utilization": min(1.0, self.vectors_seen / self.size),
                "expected_in_use": -self.size * math.expm1(self.vectors_seen * math.log1p(-1 / self.size))
                if self.size > 1
                else 1.0,
            }
        if self.codes is not None and self.vectors.count:
            codes = Moments()
            codes.add(self.codes.detach())
            distance = float((self.vectors.mean - codes.mean).norm())
            found |= {
                "vector_spread": self.vectors.spread,
                "vector_norm": self.vectors.norm,
                "code_spread": codes.spread,
                "code_norm": codes.norm,
                "offset": distance / self.vectors.spread if self.vectors.spread else None,
            }
        return found

    def drawn(self) -> Drawn | None:
        """What a figure shows; None without a table of codes."""
        if self.codes is None or not self.sample.tensors():
            return None
        return Drawn(self.sample.tensors()[0], self.codes.detach().float().cpu(), self.counts)


def _new_levels(quantizer: Quantizer) -> list[Tensor] | None:
    """Zero counts of each level of each channel of a grid."""
    if not isinstance(quantizer, GridQuantizer) or max(quantizer.level_counts) > MOST_LEVELS:
        return None
    return [torch.zeros(count, dtype=torch.int64, device="cpu") for count in quantizer.level_counts]


def _count_levels_(levels: list[Tensor], of_channels: Tensor) -> None:
    for counts, channel in zip(levels, of_channels.unbind(-1), strict=True):
        counts += channel.bincount(minlength=len(counts)).cpu()


def _has_parts(quantizer: Quantizer) -> bool:
    """Whether the quantizers inside have tallies of their own."""
    return quantizer.composed and hasattr(quantizer, "components")
