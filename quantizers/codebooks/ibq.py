"""Index backpropagation quantization: the gradient goes through the softmax over all codes."""

from typing import Any, Unpack

import torch
from torch import Tensor

from quantizers.clustering.kmeans import kmeans
from quantizers.codebooks.nearest import squared_distances
from quantizers.codebooks.options import CodeOptions
from quantizers.codebooks.vector import VectorQuantizer
from quantizers.core.arguments.checks import Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import exact_value
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup, Ranks, total
from quantizers.core.registry import register
from quantizers.kernels.ops.nearest import highest_score
from quantizers.kernels.ops.soft import soft_codes
from quantizers.kernels.vectors import normalize


@register("ibq")
class IBQ(VectorQuantizer):
    """IBQ: p = softmax(z·e), value e_k of the largest, gradient that of (onehot(k) − sg[p] + p) E.

    Shi et al.: Scalable Image Tokenization with Index Backpropagation Quantization, 2024 (arXiv 2412.02692), and
    its published code. Logits are the plain products z·e_j, with neither a temperature nor a normalisation, in
    training and in evaluation: **the code is that of the largest product, not the nearest one**. Through p every
    code gets a gradient in each step, chosen or not; the softmax is never held as an N × K matrix.

    loss = double_weight · mean (q − z)² + commitment_weight · mean (z − sg[e_k])² + codebook_weight ·
    mean (sg[z] − e_k)², where q is the value above with its gradient through p: the paper's double quantization
    loss. All three are means over vectors and channels. The published code weighs the codebook's term by ¼ and the
    other two by 1, as the defaults here do. The paper's entropy penalty is
    `quantizers.regularizers.Entropy`, given as one of the regularizers.

    How sharp p is depends on the size of z and of the codes, and no option here changes it. Where a vector is so
    long that rounding moves its logits by more than a nat (|z| · |e| > 1/ε over the largest components, 2²³ in
    float32), p is a single code, and nothing but rounding would come through it: no gradient does.

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        commitment_weight, codebook_weight, double_weight: see above.
        regularizers: as in VectorQuantizer.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1.
    """

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        commitment_weight: Weight = 1.0,
        codebook_weight: Weight = 0.25,
        double_weight: Weight = 1.0,
        **options: Unpack[CodeOptions],
    ) -> None:
        super().__init__(
            dim,
            codebook_size,
            commitment_weight=commitment_weight,
            codebook_weight=codebook_weight,
            **options,
        )
        self.double_weight = double_weight

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Codes of one length in the directions of spherical k-means: then each has the largest product somewhere.

        Those of k-means itself would not: a short code between long ones wins no product. The length is the
        vectors' mean one.
        """
        directions = kmeans(z, self.codebook_size, distance="cosine", process_group=process_group)
        lengths = (z * normalize(z)).sum(-1)
        length, count = total(Ranks(process_group).group(), lengths.sum(), torch.ones_like(lengths).sum())
        self.set_codebook(directions * (length / count))

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z, valid = rows.vectors, rows.valid
        quantized, indices, loss = super()._quantize(rows)
        double = self.double_weight * squared_distances(quantized, z).where(valid, 0.0)
        double = (double / (valid.sum().clamp(min=1) * self.code_dim)).sum()
        return QuantizerOutput(quantized, indices, loss + double)

    def _assign(self, z: Tensor, codebook: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._looked_up(z, codebook, self._encode(z))

    def _pass_gradient(self, z: Tensor, codes: Tensor) -> Tensor:
        keys = self.embedding.to(z.dtype)
        size = z.detach().abs().amax(-1, keepdim=True) * keys.detach().abs().amax((0, 1))
        resolved = size * torch.finfo(z.dtype).eps < 1
        zero, one = z.new_zeros(self.codebook_size), z.new_ones(())
        # The chosen code gets the value's gradient itself, and the softmax only the logits': values without one.
        # Zeros stand for vectors that get none through it: their logits may leave float32, which is NaN on a GPU.
        soft, _, _ = soft_codes(z.where(resolved, 0.0), keys, zero, keys.detach(), one)
        return exact_value(soft.where(resolved, 0.0), codes)

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {**super()._index_rule, "choice": "product"}

    def _encode(self, z: Tensor) -> Tensor:
        return highest_score(z, self.embedding, torch.zeros_like(self.embedding[:, 0]))
