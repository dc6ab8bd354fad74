"""Index backpropagation quantization: the gradient goes through the softmax over all codes."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from quantizers.clustering.kmeans import kmeans
from quantizers.codebooks.nearest import squared_distances
from quantizers.codebooks.options import CodeOptions
from quantizers.codebooks.vector import VectorQuantizer
from quantizers.core.arguments.checks import FinitePositive, Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.entropy import entropy_of_logits, product_logits
from quantizers.core.gradients import exact_value
from quantizers.core.layout import Rows
from quantizers.core.learned_codes import LearnedCodes
from quantizers.core.output import NO_CODE, QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import register
from quantizers.kernels.common.vectors import normalize
from quantizers.kernels.highest.operation import highest_score
from quantizers.kernels.soft.operation import soft_codes


@register("ibq")
class IBQ(VectorQuantizer):
    """IBQ: the code of the largest product z·e, with a gradient through the softmax over all codes.

    Use it to train very large codebooks: every code gets a gradient in each step, chosen or not.

    Shi et al.: Scalable Image Tokenization with Index Backpropagation Quantization, 2024 (arXiv 2412.02692), and
    its published code:

        p = softmax_j(z·e_j), k = argmax_j z·e_j
        q = (onehot(k) + p − sg[p]) E, whose value is e_k
        loss = double_weight · mean (q − z)² + commitment_weight · mean (z − sg[e_k])²
               + codebook_weight · mean (sg[z] − e_k)²
               + entropy_weight · (mean H(p') − H(mean p')), p' = softmax_j(z·e_j / entropy_temperature)

    with means over vectors and channels, and entropies H in nats. The logits are the plain products, without a
    temperature or a normalization, in training and in evaluation: **the code has the largest product and need not
    be the nearest**. Neither softmax is stored as an N × K matrix.

    **What it needs.** Codes start at N(0, 1), as in the published code: at a nearly uniform p, z gets the
    decoder's gradient times the codes' covariance, so that codes of variance 1/D would pass on 1/D of it. The
    published weights are ten times the defaults here (1 for the first two terms and β = ¼ for the codebook term,
    where VQ has 1). They belong to a reconstruction loss as large as L1 + LPIPS; beside a squared error of 0.03
    they outweigh it. In the benchmark's autoencoder (K 1024, D 32, 1000 steps, three seeds) the defaults reached
    22.9 to 23.2 dB with 102 to 117 codes in use, where plain VQ reached 22.0 to 22.6 dB with 18 to 31; with the
    published weights it was 19.4 dB, and with first codes of variance 1/D as well 18.0 dB (one seed each). With 8
    channels it is less stable: 21.4, 22.8 and 23.1 dB, VQ 23.0 to 23.5. The published entropy penalty (weight
    0.05) had 792 to 847 codes in use, at 21.8 to 22.1 dB: it is off by default, and for long trainings.

    With `DeadCodeReplacement` 122 to 203 codes were in use, at 23.3 to 23.4 dB. A replaced code gets the direction
    of a vector and the mean length of the codes: at the length of the vector it could have the largest product for
    every vector, and did. **`warm_start` is advised against**: it sets directions by k-means, at the length √D of
    first codes, and cost 1.4 dB there (one seed).

    How sharp p is depends on the lengths of z and of the codes, and no option changes it. Where rounding moves the
    logits of a vector by more than a nat (max |z| · max |e| > 1/ε over their components; 1/ε = 2²³ in float32), p
    is a single code and its gradient only rounding: such a vector passes no gradient through p.

    Example:
        >>> quantizer = IBQ(dim=16, codebook_size=64)
        >>> quantized, indices, loss = quantizer(torch.randn(100, 16))
        >>> quantized.sum().backward()
        >>> bool((quantizer.embedding.grad != 0).any(1).all())  # also codes that no vector chose
        True

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        commitment_weight, codebook_weight, double_weight: see the loss.
        entropy_weight, entropy_temperature: of the entropy penalty. Published are 0.05 and 0.01. As in `Entropy`,
            the mean over vectors is that of one rank.
        regularizers: as in VectorQuantizer.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1.
    """

    always_in_repr = (*VectorQuantizer.always_in_repr, "double_weight")

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        commitment_weight: Weight = 0.1,
        codebook_weight: Weight = 0.025,
        double_weight: Weight = 0.1,
        entropy_weight: Weight = 0.0,
        entropy_temperature: FinitePositive = 0.01,
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
        self.entropy_weight = entropy_weight
        self.entropy_temperature = entropy_temperature

    def reset_parameters(self) -> None:
        """Draw the codes from N(0, 1)."""
        with torch.no_grad():
            nn.init.normal_(self.embedding)

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Set codes of equal length in the directions that spherical k-means finds.

        Each of them then has the largest product for some vector. Centroids of plain k-means would not: a short
        code between long ones never wins. The length is √D, that of first codes.
        """
        directions = kmeans(z, self.codebook_size, distance="cosine", process_group=process_group)
        self.set_codebook(directions * self.code_dim**0.5)

    @torch.no_grad()
    def move_codes(self, positions: Tensor, targets: Tensor, shares: Tensor) -> None:
        """See `LearnedCodes`; the targets are scaled to the mean length of the codes.

        A code that is longer than the others would have the largest product for nearly every vector.
        """
        lengths = torch.linalg.vector_norm(self.embedding, dim=-1)
        super().move_codes(positions, normalize(targets.to(lengths)) * lengths.mean(), shares)

    def learned_rows(self, rows: Rows, indices: Tensor) -> Iterator[tuple[LearnedCodes, Tensor, Tensor]]:
        """See `LearnedCodes`. A zero vector has no direction and chooses no code."""
        for quantizer, z, chosen in super().learned_rows(rows, indices):
            yield quantizer, z, chosen.where((z != 0).any(-1), NO_CODE)

    @property
    def loss_depends_on_batch(self) -> bool:
        """Whether there is an entropy penalty or a regularizer, which are losses on all vectors of the batch."""
        return self.entropy_weight > 0 or super().loss_depends_on_batch

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z, valid = rows.vectors, rows.valid
        quantized, indices, loss = super()._quantize(rows)
        double = self.double_weight * squared_distances(quantized, z).where(valid, 0.0)
        double = (double / (valid.sum().clamp(min=1) * self.code_dim)).sum()
        if self.entropy_weight:
            logits = product_logits(z, self._codebook(), self.entropy_temperature)
            loss = loss + self.entropy_weight * entropy_of_logits(*logits, valid)
        return QuantizerOutput(quantized, indices, loss + double)

    def _assign(self, z: Tensor, codebook: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._codes_and_losses(z, codebook, self._encode(z))

    def _pass_gradient(self, z: Tensor, codes: Tensor) -> Tensor:
        keys = self.embedding.to(z.dtype)
        size = z.detach().abs().amax(-1, keepdim=True) * keys.detach().abs().amax((0, 1))
        resolved = size * torch.finfo(z.dtype).eps < 1
        zero, one = z.new_zeros(self.codebook_size), z.new_ones(())
        # The chosen code gets the gradient of the value directly. The softmax passes on the gradient of the logits
        # only, so its values are detached. Vectors without a gradient through it are replaced by zeros: their
        # logits may leave float32, which gives NaN on a GPU.
        soft, _, _ = soft_codes(z.where(resolved, 0.0), keys, zero, keys.detach(), one)
        return exact_value(soft.where(resolved, 0.0), codes)

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {**super()._index_rule, "choice": "product"}

    def _encode(self, z: Tensor) -> Tensor:
        return highest_score(z, self.embedding, torch.zeros_like(self.embedding[:, 0]))
