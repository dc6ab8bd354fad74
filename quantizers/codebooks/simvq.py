"""SimVQ: a codebook that is a learned map of a fixed basis, so that all codes move together."""

import itertools
from collections.abc import Iterator
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from quantizers.clustering.kmeans import kmeans
from quantizers.codebooks.nearest import NearestCodeQuantizer
from quantizers.codebooks.options import VQOptions
from quantizers.core.arguments.checks import Size
from quantizers.core.arguments.configurable import configurable
from quantizers.core.arguments.options import checked
from quantizers.core.codebook import check_codes, init_codes_
from quantizers.core.parallel import ProcessGroup
from quantizers.core.projection import Projection
from quantizers.core.registry import register
from quantizers.core.state.half_state import call_widened, widened
from quantizers.core.state.initialization import SelfInitialized
from quantizers.core.state.writing import write


@configurable(arguments=lambda diagonal: {"dim": len(diagonal.weight)})
class Diagonal(SelfInitialized):
    """Scales each channel: c ↦ c ⊙ w. w [D] starts as ones."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    to_identity = reset_parameters

    def forward(self, codes: Tensor) -> Tensor:
        return codes * self.weight


@configurable(arguments=lambda matrix: {"dim": matrix.in_features})
class Matrix(Projection):
    """c ↦ cW without bias. The parameter `weight` is Wᵀ, as in nn.Linear; it starts as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, bias=False)

    def reset_parameters(self) -> None:
        nn.init.eye_(self.weight)

    to_identity = reset_parameters


@configurable(arguments=lambda affine: {"dim": len(affine.scale)})
class Affine(SelfInitialized):
    """Scales and shifts each channel: c ↦ c ⊙ s + m. s [D] starts as ones, m [D] as zeros.

    Huh, Cheung, Agrawal, Isola: Straightening Out the Straight-Through Estimator, 2023 (arXiv 2305.08842). All
    codes share s and m, so that their gradients are sums over the chosen codes, and a step on them moves the whole
    codebook towards the distribution of the vectors. To give them a learning rate of their own, put
    `quantizer.transform.parameters()` into a parameter group of the optimizer.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(dim))
        self.shift = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.shift)

    to_identity = reset_parameters

    def forward(self, codes: Tensor) -> Tensor:
        return codes * self.scale + self.shift


@register("affine_vq", transform="affine", learned_basis=True)
@register("simvq")
class SimVQ(NearestCodeQuantizer):
    """SimVQ: nearest code of C·W, a fixed random basis C times a learned matrix W.

    Use it for large codebooks: a step on W moves every code, chosen or not, so that codes do not die.

    Zhu et al.: Addressing Representation Collapse in Vector Quantized Models with One Linear Layer, 2024
    (arXiv 2411.02038). With C [K, D] drawn from N(0, 1/D) and frozen, and c_k its row k:

        k = argmin_j ‖z − c_j W‖, value c_k W
        loss = codebook_weight · mean (sg[z] − c_k W)² + commitment_weight · mean (z − sg[c_k W])²

    with means over vectors and channels. **Only the first term has a gradient for W**, summed over the chosen
    codes; the second one moves the encoder alone. Straight-through, the decoder's gradient reaches z but not W;
    with decoder_gradient=True it reaches W too, as do the gradients of regularizers. With learned_basis=True,
    whatever reaches W reaches C.

    **The parameter `transform.weight` is Wᵀ**, as in nn.Linear: codebook = basis @ transform.weight.T. There is no
    bias. W starts as the identity, so that the first codes are the basis itself.

    The diagonal variant is from J. Su's note of November 2024. With transform="affine" and learned_basis=True this
    is the affine reparameterization of Huh et al. 2023, registered as "affine_vq"; with a `VQBridge` as the
    transform it is FVQ, registered as "vqbridge".

    Example:
        >>> quantizer = SimVQ(dim=16, codebook_size=64)
        >>> torch.allclose(quantizer.codebook, quantizer.basis @ quantizer.transform.weight.T)
        True
        >>> quantizer(torch.randn(100, 16)).loss.backward()
        >>> quantizer.transform.weight.grad.shape, quantizer.basis.requires_grad
        (torch.Size([16, 16]), False)

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        transform: "linear" for a full W, "diagonal", "affine", or a module that maps [K, code_dim] to the same
            shape. To start from data (`initialize_from`), a module of your own needs a method `to_identity` after
            which it maps codes to themselves.
        learned_basis: learn C too.
        distance: "euclidean", "cosine" for codes on the unit sphere, or "angle" for a search by angle alone.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., D].
        commitment_weight, codebook_weight: see the loss.
        decoder_gradient, regularizers: as in VectorQuantizer.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1, an unknown transform, distance or gradient, and, when used, for a
    module that does not preserve the shape [K, code_dim].
    """

    basis: Tensor

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        transform: Literal["linear", "diagonal", "affine"] | nn.Module = "linear",
        learned_basis: bool = False,
        **options: Unpack[VQOptions],
    ) -> None:
        super().__init__(dim, codebook_size, **options)
        basis = torch.empty(codebook_size, self.code_dim)
        if learned_basis:
            self.basis = nn.Parameter(basis)
        else:
            self.register_buffer("basis", basis)
        self.transform = _build_transform(transform, self.code_dim)
        if any(parameter.dtype != basis.dtype for parameter in self.transform.parameters()):
            self.transform.to(basis.dtype)  # state is never in half precision

    def reset_parameters(self) -> None:
        """Draw the basis from N(0, 1/code_dim). The transform resets itself."""
        init_codes_(self.basis)

    @torch.no_grad()
    def set_codebook(self, codes: Tensor) -> None:
        """Replace all codes with `codes` [K, code_dim]: they become the basis, and the transform the identity.

        Raises: ValueError for another shape, and for a transform that cannot become the identity.
        """
        codes = check_codes(codes, *self.basis.shape)
        to_identity = getattr(self.transform, "to_identity", None)
        if to_identity is None:
            raise ValueError(
                f"transform is {type(self.transform).__name__}, which has no method to_identity, so the codes "
                "cannot be set; expected a transform that can become the identity"
            )
        write(self, "basis", codes)
        to_identity()

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        self.set_codebook(kmeans(z, self.codebook_size, distance=self.distance, process_group=process_group))

    def _code_parameters(self) -> Iterator[nn.Parameter]:
        return itertools.chain(super()._code_parameters(), self.transform.parameters())

    def _codes(self) -> Tensor:
        codes = call_widened(self.transform, widened(self.basis))
        if codes.shape != self.basis.shape:
            raise ValueError(f"transform returned shape {tuple(codes.shape)}, expected {tuple(self.basis.shape)}")
        return codes


_TRANSFORMS = {"linear": Matrix, "diagonal": Diagonal, "affine": Affine}


def _build_transform(transform: str | nn.Module, dim: int) -> nn.Module:
    if isinstance(transform, nn.Module):
        return transform
    if not isinstance(transform, str) or transform not in _TRANSFORMS:
        raise ValueError(f"transform is {transform!r}, expected 'linear', 'diagonal', 'affine' or a module")
    return _TRANSFORMS[transform](dim)
