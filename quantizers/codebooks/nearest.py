"""The nearest code of a codebook, whoever holds it: shared by VQ, EMA VQ and SimVQ."""

import abc
import itertools
from collections.abc import Iterator
from typing import Any, Unpack

import torch
from torch import Tensor

from quantizers.codebooks.options import CommitmentOptions
from quantizers.core.arguments.checks import Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.codebook import lookup
from quantizers.core.gradients import resolve_gradient
from quantizers.core.layout import Rows
from quantizers.core.learned_codes import LearnedCodes
from quantizers.core.output import NO_CODE, QuantizerOutput
from quantizers.core.regularizer import check_regularizers
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.half_state import widened
from quantizers.core.state.read_only import read_only
from quantizers.kernels.ops.nearest import nearest_code, nearest_lookup
from quantizers.kernels.vectors import normalize


class NearestCodeQuantizer(RowQuantizer):
    """k = argmin_j ‖z − e_j‖, the lowest index on ties; value e_k.

    A subclass says where the codes live (`_codes`) and what they learn from an assignment (`_observe`). It may
    choose codes by another rule (`_assign`, `_encode`) and pass the gradient in another way (`_pass_gradient`).

    With distance="cosine" vectors and codes are divided by their norms first: codes, output and losses live
    on the unit sphere, and the gradient passes the division. A zero vector has no direction; it takes the
    code that rounding makes the nearest.

    With distance="angle" only the search divides by the norms: k = argmin_j ‖z/‖z‖ − e_j/‖e_j‖‖, and codes keep
    their length in output, losses and state. So DAC's stages search (Kumar et al. 2023, arXiv 2306.06546).

    Args:
        gradient: what the encoder gets, see `core.gradients`: a name or a function (z, codes) → [..., D].
        commitment_weight: of mean (z − sg[e])², which moves the encoder. β, eq. 3 of van den Oord et al. 2017.
            May be assigned at any time, as `quantizers.schedules` does.
        codebook_weight: of mean (sg[z] − e)², which moves the chosen codes.
        decoder_gradient: let the decoder's gradient reach the chosen codes too; with a function of your own, what
            that function passes on to them.
        regularizers: losses on the vectors and all codes that are added, see `quantizers.regularizers`, as the
            search compares them: with distance="cosine" or "angle" on the unit sphere.
    """

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        codebook_weight: Weight = 0.0,
        decoder_gradient: bool = False,
        **options: Unpack[CommitmentOptions],
    ) -> None:
        super().__init__(dim, codebook_size, code_dim=options["code_dim"], channel_dim=options["channel_dim"])
        self.distance = options["distance"]
        self.gradient = resolve_gradient(options["gradient"])
        self.commitment_weight = options["commitment_weight"]
        self.codebook_weight = codebook_weight
        self.decoder_gradient = decoder_gradient
        self.regularizers = check_regularizers(options["regularizers"])

    @abc.abstractmethod
    def _codes(self) -> Tensor:
        """The codes [K, code_dim], before any normalisation, attached to what they are learned through."""

    def _assign(self, z: Tensor, codebook: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [N, code_dim] of rows z, attached to the codebook, their indices [N], and the losses [N], summed
        over channels. Rows that are not valid are zero, and what is returned for them is not used."""
        if self.distance == "angle":
            return self._looked_up(z, codebook, self._encode(z))
        outputs = nearest_lookup(z[None], codebook[None], self.commitment_weight, self.codebook_weight)
        codes, indices, losses = (output[0] for output in outputs)
        return codes, indices, losses

    def _looked_up(self, z: Tensor, codebook: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`_assign` for indices [N] that are known."""
        codes = lookup(codebook.to(z.dtype), indices)
        return codes, indices, assignment_losses(z, codes, self.commitment_weight, self.codebook_weight)

    def _pass_gradient(self, z: Tensor, codes: Tensor) -> Tensor:
        """The quantized rows [N, code_dim]: what the decoder gets, and how its gradient passes to z and codes."""
        return self.gradient(z, codes if self.decoder_gradient else codes.detach())

    @property
    def codebook(self) -> Tensor:
        """All codes, [K, code_dim]; of unit norm for distance="cosine". Where they are the stored tensor itself
        they can be written into; elsewhere that raises, and `set_codebook` sets them."""
        codes = self._codebook()
        return codes if any(codes is held for held in self._held()) else read_only(codes)

    def _held(self) -> Iterator[Tensor]:
        """The tensors of its own state."""
        return itertools.chain(self.parameters(recurse=False), self.buffers(recurse=False))

    def _codebook(self) -> Tensor:
        """`codebook`, for reading."""
        return self._to_value_space(widened(self._codes()))

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {"choice": "nearest", "distance": self.distance}

    def _to_value_space(self, vectors: Tensor) -> Tensor:
        """Vectors or codes where values, losses and state live."""
        return normalize(vectors) if self.distance == "cosine" else vectors

    def _to_search_space(self, vectors: Tensor) -> Tensor:
        """Vectors or codes, as `_to_value_space` gives them, where the search compares them."""
        return normalize(vectors) if self.distance == "angle" else vectors

    @property
    def loss_depends_on_batch(self) -> bool:
        """Whether a regularizer adds a loss on all vectors of the batch."""
        return bool(self.regularizers)

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z, valid = rows.vectors, rows.valid
        z = self._to_value_space(z)
        codebook = self._codebook()
        codes, indices, losses = self._assign(z, codebook, valid)
        # Divided first: the mean may fit float32 where the sum does not.
        loss = (losses.where(valid, 0.0) / (valid.sum().clamp(min=1) * self.code_dim)).sum()
        for regularizer in self.regularizers:
            loss = loss + regularizer(self._to_search_space(z), valid, self._to_search_space(codebook))
        quantized = self._pass_gradient(z, codes)
        return QuantizerOutput(quantized, indices, loss)

    def learned_rows(self, rows: Rows, indices: Tensor) -> Iterator[tuple[LearnedCodes, Tensor, Tensor]]:
        """As for any quantizer. Where directions are compared, a zero vector chooses nothing: it has none."""
        for part, z, chosen in super().learned_rows(rows, indices):
            z = self._to_value_space(z)
            yield part, z, chosen if self.distance == "euclidean" else chosen.where((z != 0).any(-1), NO_CODE)

    def _encode(self, z: Tensor) -> Tensor:
        return _search(self._to_search_space(self._to_value_space(z)), self._to_search_space(self._codebook()))

    def _decode(self, indices: Tensor) -> Tensor:
        return lookup(self._codebook(), indices)


def _search(z: Tensor, codebook: Tensor) -> Tensor:
    indices, _ = nearest_code(z[None], codebook[None])
    return torch.squeeze(indices, 0)


def assignment_losses(z: Tensor, codes: Tensor, commitment_weight: float, codebook_weight: float) -> Tensor:
    """commitment_weight · ‖z − sg[e]‖² + codebook_weight · ‖sg[z] − e‖² for rows z and codes [N, D], [N].

    `nearest_lookup` has it built in; this is for codes that are chosen by another rule.
    """
    terms = ((commitment_weight, z, codes.detach()), (codebook_weight, z.detach(), codes))
    weighted = (weight * squared_distances(a, b) for weight, a, b in terms if weight)  # 0 · ∞ is NaN
    nothing = z[:, :0].sum(-1) + codes[:, :0].sum(-1)  # zeros whose gradient is zero, where no term is left
    return sum(weighted, nothing)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖² of rows [N, D], [N]. A product, whose gradient is finite where the square is not."""
    difference = a - b
    return (difference * difference).sum(-1)
