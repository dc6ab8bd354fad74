"""Vector quantization with a learned codebook."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from quantizers.codebooks.given import GivenCodes, size_of
from quantizers.codebooks.options import VQOptions
from quantizers.core.arguments.checks import Frozen, Size
from quantizers.core.arguments.options import checked
from quantizers.core.codebook import check_codes
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import register
from quantizers.core.state.moving import move
from quantizers.core.state.writing import write, write_rows


@register("rotation_vq", gradient="rotation")
@register("vq")
class VectorQuantizer(GivenCodes):
    """VQ: nearest code, with a codebook that is a parameter and moves towards its vectors by a loss.

    Use it as the baseline that every other method refines; with gradient="rotation" it is the rotation trick.

    van den Oord, Vinyals, Kavukcuoglu: Neural Discrete Representation Learning, 2017 (arXiv 1711.00937):

        k = argmin_j ‖z − e_j‖                                                                   (1)
        value e_k                                                                                (2)
        loss = codebook_weight · mean (sg[z] − e_k)² + commitment_weight · mean (z − sg[e_k])²   (3)

    The gradient of z is the gradient of e_k (§3.2). The first term moves the codes, the second one the encoder.
    The paper sums over channels; here both terms are means over vectors and channels, so that the weights mean
    the same at any D.

    The rotation trick is from Fifty et al. 2024 (arXiv 2410.06424), registered as "rotation_vq".

    Example:
        >>> quantizer = VectorQuantizer(dim=16, codebook_size=64)
        >>> quantized, indices, loss = quantizer(torch.randn(2, 10, 16))
        >>> quantized.shape, indices.shape, loss.shape
        (torch.Size([2, 10, 16]), torch.Size([2, 10]), torch.Size([]))
        >>> torch.equal(quantizer.decode(indices), quantized)
        True

    Codes that are given and stay, such as pretrained features, and a codebook that grows around given codes:

        >>> features = torch.randn(64, 16)
        >>> quantizer = quantizers.create("vq", 16, codebook=features, frozen=True)
        >>> torch.equal(quantizer.codebook, features)
        True
        >>> grown = torch.cat([features, torch.randn(32, 16)])
        >>> quantizer = quantizers.create("vq", 16, codebook=grown, frozen=torch.arange(96) < 64)

    **What it needs.** Without `DeadCodeReplacement` most codes die: in the benchmark's autoencoder (K 1024, D 32,
    1000 steps, three seeds) 18 to 31 codes stayed in use, at 22.0 to 22.6 dB, and with it 555 to 632, at 23.9 to
    24.0 dB. gradient="rotation" needs codes that follow their vectors closely: with these codes, which an
    optimizer moves, it reached 19.5 to 21.7 dB with 9 to 15 codes, and on `EMAVectorQuantizer` with decay=0.8 it
    reached 23.5 to 23.8 dB with 276 to 292.

    **Frozen codes.** With frozen=True all codes stay until `unfreeze`. A mask freezes some of them for good: they
    are bit-equal after any number of steps of any optimizer, since their values are a buffer, and the rows of the
    parameter that they hide get no gradient and are not read. Weight decay may move these rows. Regularizers,
    replacement and `initialize_from`, which places the other codes by k-means on all vectors, leave frozen codes
    alone. `set_codebook` sets all codes.

    Args:
        dim: channels of x. codebook_size: K ≥ 1; may be left out where `codebook` is given.
        codebook: the first codes, [K, code_dim], finite and of a floating dtype. Without it they are drawn. They
            are copied; a configuration leaves them to the state dict.
        frozen: whether the codes stay: True, False, or a mask, bool [K], of those that stay.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        distance: "euclidean", "cosine" for codes on the unit sphere, or "angle" for a search by angle alone.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., D].
        commitment_weight, codebook_weight: see equation 3.
        decoder_gradient: also pass the decoder's gradient to the chosen codes.
        regularizers: losses on vectors and codes, added to the loss, see `quantizers.regularizers`.

    State: embedding [K, code_dim]; with a mask also is_frozen [K] and frozen_embedding [K, code_dim], of which the
    frozen rows count.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1, an unknown distance or gradient, and a codebook or mask of another shape
        or with values that are not finite; TypeError for another dtype of theirs.
    """

    # For checkpoints of quantizers with an nn.Embedding.
    renamed: ClassVar[Mapping[str, str]] = {"embedding.weight": "embedding"}

    frozen_embedding: Tensor

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size | None = None,
        *,
        codebook: Tensor | None = None,
        frozen: Frozen = False,
        **options: Unpack[VQOptions],
    ) -> None:
        super().__init__(dim, size_of(type(self).__name__, codebook, codebook_size), **options)
        self.embedding = nn.Parameter(torch.empty(self.codebook_size, self.code_dim))
        self._give(codebook, frozen)

    def _register_mask(self) -> None:
        super()._register_mask()
        self.register_buffer("frozen_embedding", self.embedding.detach().clone())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        codes = state_dict.get(prefix + "embedding")
        if self.frozen_codes is not None and codes is not None and prefix + "frozen_embedding" not in state_dict:
            state_dict = {**state_dict, prefix + "frozen_embedding": codes.clone()}  # a checkpoint of codes alone
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the codes that the constructor was given; or draw them from N(0, 1/code_dim), see `init_codes_`."""
        self._first_codes_(self.embedding)
        if self.frozen_codes is not None:
            self.frozen_embedding.copy_(self.embedding)

    @torch.no_grad()
    def set_codebook(self, codes: Tensor) -> None:
        """Replace all codes with `codes` [K, code_dim]. Raises: ValueError for another shape."""
        write(self, "embedding", check_codes(codes, self.codebook_size, self.code_dim))
        if self.frozen_codes is not None:
            move(self.frozen_embedding, codes)

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        self._initialize_table(z, process_group)

    @property
    def has_table(self) -> bool:
        """True."""
        return True

    @torch.no_grad()
    def move_codes(self, positions: Tensor, targets: Tensor, shares: Tensor) -> None:
        """See `LearnedCodes`; with distance="cosine" the moved codes have unit norm. Frozen codes do not move."""
        codes = torch.lerp(
            self._codebook()[positions], targets.to(self.embedding), shares.to(self.embedding)[:, None]
        )
        write_rows(self, "embedding", positions, self._to_value_space(codes))

    def _codes(self) -> Tensor:
        if self.frozen_codes is None:
            return self.embedding
        return torch.where(self.is_frozen[:, None], self.frozen_embedding, self.embedding)
