"""SimVQ: a codebook that is a learned map of a fixed basis, so that all codes move together."""

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from quantizers.clustering.kmeans import kmeans
from quantizers.codebooks.given import size_of
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


@configurable(arguments=lambda matrix: {"basis_dim": matrix.in_features, "dim": matrix.out_features})
class WideMatrix(Projection):
    """c ↦ cW from C channels to D, without bias. The parameter `weight` is Wᵀ [D, C], drawn from N(0, 1/D).

    E ‖cW‖² = ‖c‖², so that the codes have the length of the basis vectors. No W maps codes to themselves.
    """

    def __init__(self, basis_dim: int, dim: int) -> None:
        super().__init__(basis_dim, dim, bias=False)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.out_features**-0.5)


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

    **A basis of pretrained features.** With `basis` C is given and stays, and its C channels may be others than
    the codes': W is then [C, D]. This is the codebook of VQGAN-LC (Zhu et al.: Scaling the Codebook Size of VQGAN
    to 100,000 with a Utilization Rate of 99%, 2024, arXiv 2406.11837), whose features are those of image patches.
    Such a W cannot be the identity; it is drawn from N(0, 1/D), which keeps lengths on average. For codes of
    squared norm 1, those of the other methods, give features whose mean squared norm is 1.

    Example:
        >>> quantizer = SimVQ(dim=16, codebook_size=64)
        >>> torch.allclose(quantizer.codebook, quantizer.basis @ quantizer.transform.weight.T)
        True
        >>> quantizer(torch.randn(100, 16)).loss.backward()
        >>> quantizer.transform.weight.grad.shape, quantizer.basis.requires_grad
        (torch.Size([16, 16]), False)
        >>> features = torch.nn.functional.normalize(torch.randn(64, 48), dim=-1)
        >>> quantizer = SimVQ(dim=16, basis=features)
        >>> quantizer.codebook.shape, quantizer.transform.weight.shape
        (torch.Size([64, 16]), torch.Size([16, 48]))

    Args:
        dim: channels of x. codebook_size: K ≥ 1; may be left out where `basis` is given.
        basis: C [K, basis_dim], finite and of a floating dtype. Without it, it is drawn. It is copied; a
            configuration leaves it to the state dict.
        basis_dim: channels of the basis, default those of `basis`, or `code_dim`.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        transform: "linear" for a full W, "diagonal" or "affine" where basis_dim is code_dim, or a module that maps
            [K, basis_dim] to [K, code_dim]. To start from data (`initialize_from`), which replaces the basis,
            basis_dim must be code_dim, and a module of your own needs a method `to_identity` after which it maps
            codes to themselves.
        learned_basis: learn C too.
        distance: "euclidean", "cosine" for codes on the unit sphere, or "angle" for a search by angle alone.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., D].
        commitment_weight, codebook_weight: see the loss.
        decoder_gradient, regularizers: as in VectorQuantizer.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1, an unknown transform, distance or gradient, a basis of another shape or
    with values that are not finite, and, when used, for a module that does not return the shape [K, code_dim].
    """

    basis: Tensor
    _given_basis: Tensor | None = None

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size | None = None,
        *,
        basis: Tensor | None = None,
        basis_dim: Size | None = None,
        transform: Literal["linear", "diagonal", "affine"] | nn.Module = "linear",
        learned_basis: bool = False,
        **options: Unpack[VQOptions],
    ) -> None:
        super().__init__(dim, size_of(type(self).__name__, basis, codebook_size, "basis"), **options)
        if basis_dim is None:
            basis_dim = self.code_dim if basis is None else basis.shape[1]
        if basis is not None:
            basis = check_codes(basis, self.codebook_size, basis_dim, name="basis").detach().clone()
        self._given_basis = basis
        empty = torch.empty(self.codebook_size, basis_dim)
        if learned_basis:
            self.basis = nn.Parameter(empty)
        else:
            self.register_buffer("basis", empty)
        self.transform = _build_transform(transform, basis_dim, self.code_dim)
        if any(parameter.dtype != empty.dtype for parameter in self.transform.parameters()):
            self.transform.to(empty.dtype)  # state is never in half precision

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the basis that was given, or draw it from N(0, 1/basis_dim). The transform resets itself."""
        if self._given_basis is None:
            init_codes_(self.basis)
        else:
            self.basis.copy_(self._given_basis)

    def _options_in_state(self) -> dict[str, Any]:
        width = self.basis.shape[1]
        sizes = {"codebook_size": self.codebook_size, "basis_dim": None if width == self.code_dim else width}
        return {"basis": None, **sizes}

    @torch.no_grad()
    def set_codebook(self, codes: Tensor) -> None:
        """Replace all codes with `codes` [K, code_dim]: they become the basis, and the transform the identity.

        Raises: ValueError for another shape, and for a transform that cannot become the identity.
        """
        codes = check_codes(codes, self.codebook_size, self.code_dim)
        to_identity = getattr(self.transform, "to_identity", None)
        if self.basis.shape != codes.shape and to_identity is not None:
            raise ValueError(
                f"basis has {self.basis.shape[1]} channels, so that the codes cannot be set, expected "
                f"{self.code_dim}, as many as the codes have"
            )
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
        expected = (self.codebook_size, self.code_dim)
        if codes.shape != expected:
            raise ValueError(f"transform returned shape {tuple(codes.shape)}, expected {expected}")
        return codes

    def extra_repr(self) -> str:
        width = self.basis.shape[1]
        return super().extra_repr() + (f", basis_dim={width}" if width != self.code_dim else "")


_TRANSFORMS = {"linear": Matrix, "diagonal": Diagonal, "affine": Affine}


def _build_transform(transform: str | nn.Module, basis_dim: int, dim: int) -> nn.Module:
    if isinstance(transform, nn.Module):
        return transform
    if not isinstance(transform, str) or transform not in _TRANSFORMS:
        raise ValueError(f"transform is {transform!r}, expected 'linear', 'diagonal', 'affine' or a module")
    if basis_dim == dim:
        return _TRANSFORMS[transform](dim)
    if transform != "linear":
        raise ValueError(
            f"transform is {transform!r}, which maps each channel to itself, but the basis has {basis_dim} "
            f"channels and the codes {dim}; expected 'linear' or a module"
        )
    return WideMatrix(basis_dim, dim)
