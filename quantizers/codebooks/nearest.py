"""Search for the nearest code of a codebook: the base of VQ, EMA VQ, SimVQ and their variants."""

import abc
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from quantizers.codebooks.options import CommitmentOptions
from quantizers.core.arguments.checks import Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.arguments.representation import options_in_repr
from quantizers.core.codebook import lookup
from quantizers.core.gradients import resolve_gradient
from quantizers.core.layout import Rows
from quantizers.core.learned_codes import LearnedCodes
from quantizers.core.output import NO_CODE, QuantizerOutput
from quantizers.core.regularizer import check_regularizers
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.half_state import widened
from quantizers.core.state.read_only import read_only
from quantizers.kernels.common.vectors import normalize
from quantizers.kernels.nearest.operation import nearest_code, nearest_lookup
from quantizers.kernels.rows.operation import mean_loss


class NearestCodeQuantizer(RowQuantizer):
    """Replaces each vector by the nearest code of a codebook. Derive from it for methods that search one codebook.

    k = argmin_j ‖z − e_j‖, the lowest index on ties; the value is e_k.

    A subclass defines the codes (`_codes`), and `_observe` if they learn from assignments. It may also choose
    codes by another rule (`_assign` and `_encode`), or pass the gradient in another way (`_pass_gradient`).

    With distance="cosine", vectors and codes are first divided by their norms. Codes, output and losses then lie
    on the unit sphere, and the gradient passes through the division. A zero vector has no direction: rounding
    decides which code it takes.

    With distance="angle", only the search divides by the norms: k = argmin_j ‖z/‖z‖ − e_j/‖e_j‖‖. Codes keep their
    length in output, losses and state. The stages of DAC search this way (Kumar et al. 2023, arXiv 2306.06546).

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        distance: "euclidean", "cosine" or "angle".
        gradient: the gradient that the encoder gets: the name of a function in `core.gradients`, or a function
            (z, codes) → [..., D].
        commitment_weight: weight of mean (z − sg[e])², which moves the encoder; β in equation 3 of van den Oord et
            al. 2017 (arXiv 1711.00937). It may be assigned at any time, as `quantizers.schedules` does.
        codebook_weight: weight of mean (sg[z] − e)², which moves the chosen codes.
        decoder_gradient: also pass the decoder's gradient to the chosen codes; with a gradient function of your
            own, what that function passes on to them.
        regularizers: losses on the vectors and all codes, added to the loss, see `quantizers.regularizers`. They
            see vectors and codes as the search compares them: on the unit sphere for "cosine" and "angle".
    """

    always_in_repr: ClassVar[tuple[str, ...]] = ("commitment_weight", "codebook_weight")
    """Options that `repr` shows even at their defaults, unless they are zero. It shows all others that differ."""

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
        """The codes [K, code_dim] before any normalization, attached to the parameters that they are computed
        from."""

    def _assign(self, z: Tensor, codebook: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Choose codes for rows z.

        Returns: codes [N, code_dim], attached to the codebook; their indices [N]; and the losses [N], summed over
        channels. Rows that are not valid are zero, and their results are not used.
        """
        if self.distance == "angle":
            return self._codes_and_losses(z, codebook, self._encode(z))
        outputs = nearest_lookup(z[None], codebook[None], self.commitment_weight, self.codebook_weight)
        codes, indices, losses = (torch.squeeze(output, 0) for output in outputs)
        return codes, indices, losses

    def _codes_and_losses(self, z: Tensor, codebook: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The result of `_assign` for given indices [N]."""
        codes = lookup(codebook.to(z.dtype), indices)
        return codes, indices, assignment_losses(z, codes, self.commitment_weight, self.codebook_weight)

    def _pass_gradient(self, z: Tensor, codes: Tensor) -> Tensor:
        """The quantized rows [N, code_dim], through which the decoder's gradient reaches z and the codes."""
        return self.gradient(z, codes if self.decoder_gradient else codes.detach())

    @property
    def codebook(self) -> Tensor:
        """All codes, [K, code_dim]; of unit norm for distance="cosine".

        Where this is the stored tensor itself, it can be modified in place. Elsewhere a modification raises; use
        `set_codebook`.
        """
        codes = self._codebook()
        return codes if any(codes is tensor for tensor in self._own_tensors().values()) else read_only(codes)

    def _codebook(self) -> Tensor:
        """`codebook`, for internal use: without the protection against writing."""
        return self._to_value_space(widened(self._codes()))

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {"choice": "nearest", "distance": self.distance}

    def _to_value_space(self, vectors: Tensor) -> Tensor:
        """Map vectors or codes to the space of values, losses and state."""
        return normalize(vectors) if self.distance == "cosine" else vectors

    def _to_search_space(self, vectors: Tensor) -> Tensor:
        """Map vectors or codes from the value space to the space in which the search compares them."""
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
        loss = mean_loss(losses, valid, self.code_dim)
        for regularizer in self.regularizers:
            loss = loss + regularizer(self._to_search_space(z), valid, self._to_search_space(codebook))
        quantized = self._pass_gradient(z, codes)
        return QuantizerOutput(quantized, indices, loss)

    def learned_rows(self, rows: Rows, indices: Tensor) -> Iterator[tuple[LearnedCodes, Tensor, Tensor]]:
        """See `LearnedCodes`. Where directions are compared, a zero vector has none and chooses no code."""
        for quantizer, z, chosen in super().learned_rows(rows, indices):
            z = self._to_value_space(z)
            yield quantizer, z, chosen if self.distance == "euclidean" else chosen.where((z != 0).any(-1), NO_CODE)

    def _encode(self, z: Tensor) -> Tensor:
        return torch.squeeze(nearest_code(*self._vectors_and_codes(z))[0], 0)

    def _compared(self, z: Tensor) -> tuple[Tensor, Tensor]:
        # A subclass may choose by another rule, such as the largest product.
        return self._vectors_and_codes(z) if self._index_rule["choice"] == "nearest" else super()._compared(z)

    def _vectors_and_codes(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Rows z [1, N, code_dim] and all codes [1, K, code_dim], as the search compares them."""
        z, codes = self._to_value_space(z), self._codebook()
        return self._to_search_space(z)[None], self._to_search_space(codes)[None]

    def _decode(self, indices: Tensor) -> Tensor:
        return lookup(self._codebook(), indices)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [super().extra_repr(), options_in_repr(self, self.always_in_repr)]))


def assignment_losses(z: Tensor, codes: Tensor, commitment_weight: float, codebook_weight: float) -> Tensor:
    """The losses [N] of rows z and their codes e [N, D]:

    commitment_weight · ‖z − sg[e]‖² + codebook_weight · ‖sg[z] − e‖².

    `nearest_lookup` computes them itself; use this for codes that are chosen by another rule.
    """
    terms = ((commitment_weight, z, codes.detach()), (codebook_weight, z.detach(), codes))
    weighted = (weight * squared_distances(a, b) for weight, a, b in terms if weight)  # 0 · ∞ is NaN
    nothing = z[:, :0].sum(-1) + codes[:, :0].sum(-1)  # zeros with a zero gradient, for weights of 0
    return sum(weighted, nothing)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖² [N] of rows [N, D]: a product, whose gradient stays finite where its value overflows."""
    difference = a - b
    return (difference * difference).sum(-1)
