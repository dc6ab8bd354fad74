"""Product quantization with learned codebooks, which are all searched in one call."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Unpack

from quantizers.clustering.kmeans import kmeans
from quantizers.codebooks.nearest import NearestCodeQuantizer
from quantizers.codebooks.options import HeadOptions
from quantizers.core.arguments.checks import Probability, Size
from quantizers.core.arguments.options import checked
from quantizers.core.codebook import check_codes, init_codes_, lookup
from quantizers.core.layout import Rows
from quantizers.core.output import NO_CODE, QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import register
from quantizers.core.state.writing import write
from quantizers.core.truncatable import TruncatableQuantizer
from quantizers.kernels.nearest.operation import nearest_code, nearest_lookup
from quantizers.kernels.rows.operation import mean_loss


@register("multihead")
class MultiHeadVectorQuantizer(TruncatableQuantizer, NearestCodeQuantizer):
    """Product quantization: equal shares of the channels, each with a learned codebook of its own.

    Use it for many small heads, where the calls cost more than the arithmetic: it gives the same as a
    GroupedQuantizer of H VectorQuantizers, with a single call of each operation.

    Jégou, Douze, Schmid: Product Quantization for Nearest Neighbor Search, 2011, with codebooks that learn as
    VQ's do (van den Oord et al. 2017, arXiv 1711.00937, equation 3). With z = [z_1 … z_H] split by channels,

        k_h = argmin_j ‖z_h − e_hj‖, value [e_1k_1 … e_Hk_H]
        loss = codebook_weight · mean (sg[z] − e)² + commitment_weight · mean (z − sg[e])²

    with means over vectors and all channels. H heads of K codes give K^H values at the cost of a search over K.
    With distance="cosine", the vectors and codes of each head lie on a unit sphere of their own.

    `num_codebooks=n` and `dropout` use the first n heads alone, as in GroupedQuantizer: the others have index −1
    and zeros in their channels, and a head's share of the loss is a mean over the vectors that reached it.

    Example:
        >>> quantizer = MultiHeadVectorQuantizer(dim=16, codebook_size=64, num_heads=4)
        >>> quantized, indices, loss = quantizer(torch.randn(2, 10, 16))
        >>> quantized.shape, indices.shape, quantizer.codebook.shape
        (torch.Size([2, 10, 16]), torch.Size([2, 10, 4]), torch.Size([4, 64, 4]))

    Args:
        dim: channels of x, a multiple of num_heads. codebook_size: K ≥ 1, codes per head. num_heads: H ≥ 1.
        channel_dim: axis of x's channels.
        distance: "euclidean" or "cosine".
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., dim/H], called with
            all heads at once.
        commitment_weight, codebook_weight: see the loss. The first may be assigned at any time.
        decoder_gradient: also pass the decoder's gradient to the chosen codes.
        dropout: the probability, in [0, 1], with which training uses fewer heads.
        dropout_by: "sample", the first axis of x, or "batch".

    State: embedding [H, K, dim/H].

    Shapes: x [..., dim] → quantized [..., dim], indices [..., H], loss []. `codebook` is [H, K, dim/H].

    Raises: ValueError for a size below 1, heads that do not divide dim, an unknown distance or gradient, dropout
        outside [0, 1], and for more codebooks than there are.
    """

    always_in_repr = (*NearestCodeQuantizer.always_in_repr, "num_heads")

    composed = True

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        num_heads: Size = 2,
        *,
        dropout: Probability = 0.0,
        dropout_by: Literal["sample", "batch"] = "sample",
        **options: Unpack[HeadOptions],
    ) -> None:
        if options["distance"] == "angle":
            raise ValueError("distance is 'angle', expected 'euclidean' or 'cosine': one call searches all heads")
        super().__init__(dim, codebook_size, **options)
        if dim % num_heads:
            raise ValueError(f"dim is {dim}, expected a multiple of num_heads, {num_heads}")
        self.num_codebooks = num_heads
        self.dropout = dropout
        self.dropout_by = dropout_by
        self.embedding = nn.Parameter(torch.empty(num_heads, codebook_size, dim // num_heads))

    def reset_parameters(self) -> None:
        """Draw the codes from N(0, H/dim), see `init_codes_`."""
        init_codes_(self.embedding)

    @torch.no_grad()
    def set_codebook(self, codes: Tensor) -> None:
        """Replace all codes with `codes` [H, K, dim/H]. Raises: ValueError for another shape."""
        write(self, "embedding", check_codes(codes, *self.embedding.shape))

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Initialize each head by k-means on its own channels."""
        heads = z.chunk(self.num_codebooks, -1)
        books = [
            kmeans(head, self.codebook_size, distance=self.distance, process_group=process_group) for head in heads
        ]
        self.set_codebook(torch.stack(books))

    @property
    def codebook_counts(self) -> tuple[int, ...]:
        """1 … H."""
        return tuple(range(1, self.num_codebooks + 1))

    def _codes(self) -> Tensor:
        return self.embedding

    def _quantize_first(self, parts: int, projected: Rows) -> QuantizerOutput:
        depths, valid = self._draw_depths(projected), projected.valid
        heads, books = self._first(parts, self._heads(projected.vectors)), self._first(parts, self._codebook())
        codes, indices, losses = nearest_lookup(heads, books, self.commitment_weight, self.codebook_weight)
        quantized = self._pass_gradient(heads, codes)
        if depths is None:
            loss = mean_loss(losses, valid, self.dim)
        else:
            reached = valid & (depths > torch.arange(parts, device=depths.device)[:, None])
            quantized, indices = quantized.where(reached[..., None], 0.0), indices.where(reached, NO_CODE)
            counts = reached.sum(-1, keepdim=True).clamp(min=1)
            loss = (losses.where(reached, 0.0) / (counts * self.dim)).sum(-1)
        return QuantizerOutput(self._filled(quantized.transpose(0, 1).flatten(1)), indices.T.contiguous(), loss)

    def _encode_first(self, parts: int, z: Tensor) -> Tensor:
        heads, books = self._first(parts, self._heads(z)), self._first(parts, self._codebook())
        return nearest_code(heads, books)[0].T.contiguous()

    def _vectors_and_codes(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self._heads(z), self._codebook()

    def _first(self, parts: int, tensor: Tensor) -> Tensor:
        """The first heads of [H, ...]; for all the tensor itself, since a slice costs kernels in a backward."""
        return tensor if parts == self.num_codebooks else tensor[:parts]

    def _decode(self, indices: Tensor) -> Tensor:
        columns = indices.shape[-1]
        first = torch.arange(columns, device=indices.device) * self.codebook_size
        codes = lookup(self._codebook().flatten(0, 1), (indices.clamp(min=0) + first).flatten())
        codes = codes.where((indices >= 0).reshape(-1, 1), 0.0)
        return self._filled(codes.reshape(indices.shape[0], columns * (self.dim // self.num_codebooks)))

    def _filled(self, values: Tensor) -> Tensor:
        """The values of the first heads [N, ...] with zeros in the channels of the others, [N, dim]."""
        missing = self.dim - values.shape[-1]
        return F.pad(values, (0, missing)) if missing else values

    def _heads(self, z: Tensor) -> Tensor:
        """Split rows [N, dim] into heads [H, N, dim/H]."""
        heads = z.reshape(-1, self.num_codebooks, self.dim // self.num_codebooks)
        return self._to_value_space(heads.transpose(0, 1))
