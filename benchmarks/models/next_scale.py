"""A transformer over the scales of a multi-scale quantizer, which predicts all codes of a scale at once.

Tian et al.: Visual Autoregressive Modeling, 2024 (arXiv 2404.02905).
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.errors import InputError
from benchmarks.models.attention import AttentionBlock, AttentionCache, stack_blocks
from benchmarks.models.checks import check_evaluation, check_tokens
from benchmarks.models.guidance import LabelEmbedding, guidance_at, guide
from benchmarks.models.sampling import draw, filter_logits
from quantizers.composite.pyramid_quantizer import PyramidQuantizer
from quantizers.core.arguments.checks import check_at_least


class NextScaleTransformer(nn.Module):
    """p(scale k | coarser scales, label), where the codes within a scale are independent given the coarser ones.

        p(r_1, …, r_S | label) = Π_k Π_i p(r_{k,i} | r_1, …, r_{k−1}, label)

    The tokens of the first scale are the label's embedding. Those of a later scale are a linear map of what the
    quantizer has decoded from all coarser scales, resized to this one (`quantizer.scale_inputs`). Each token also
    has learned vectors of its scale and of its position there, and the label's embedding. Attention is
    block-causal: a token sees its own scale and all coarser ones.

    An image takes S forward passes, one for each scale.

    Args:
        codebook_size: K, the number of codes, the same at all scales.
        dim: channels of the quantizer's latents, its `code_dim`.
        scales: (h, w) of each of the S scales, coarse to fine.
        width: channels of a token, a multiple of `heads`.
        layers: number of blocks ≥ 1.
        heads: number of attention heads.
        dropout: dropout rate of each layer's output, in [0, 1).
        classes: number of labels; None for a prior without labels.
        label_dropout: probability that a label is dropped in training, for guidance.

    Shapes: with L tokens in all scales, L_1 of them in the first: inputs [B, L − L_1, dim], label [B] int64 →
        logits [B, L, K].

    Raises: ValueError for invalid sizes; InputError, in use, for unsuitable inputs, tokens or labels.
    """

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        scales: Sequence[tuple[int, int]],
        width: int = 128,
        *,
        layers: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        classes: int | None = None,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.codebook_size = check_at_least("codebook_size", codebook_size, 1)
        self.dim = check_at_least("dim", dim, 1)
        self.scales = _check_scales(scales)
        self.counts = [height * width for height, width in self.scales]  # tokens of each scale
        self.width = check_at_least("width", width, 1)
        self.label = LabelEmbedding(classes, width, label_dropout)
        self.from_latents = nn.Linear(dim, width)
        self.scale = nn.Parameter(torch.empty(len(self.scales), width))
        self.position = nn.Parameter(torch.empty(sum(self.counts), width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = stack_blocks(AttentionBlock, layers, width, heads, dropout)
        self.norm = nn.LayerNorm(width)
        self.to_logits = nn.Linear(width, codebook_size)
        scale_of = torch.arange(len(self.scales)).repeat_interleave(torch.tensor(self.counts))
        self.register_buffer("scale_of", scale_of, persistent=False)  # [L]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw scales and positions from N(0, 0.02²). The layers initialize themselves."""
        for table in (self.scale, self.position):
            nn.init.normal_(table, std=0.02)

    def forward(self, inputs: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the logits of every token given the coarser scales: [B, L, K]."""
        length, first = sum(self.counts), self.counts[0]
        if inputs.dim() != 3 or inputs.shape[1:] != (length - first, self.dim):
            raise InputError(
                f"inputs have shape {tuple(inputs.shape)}, expected [B, {length - first}, {self.dim}]: what "
                f"quantizer.scale_inputs returns for the scales {list(self.scales)}"
            )
        embedded = self.label(label, len(inputs))[:, None]
        tokens = F.pad(self.from_latents(inputs), (0, 0, first, 0)) + embedded + self.positions()
        tokens = self.dropout(tokens)
        mask = self.scale_of[:, None] >= self.scale_of
        for block in self.blocks:
            tokens = block(tokens, mask)
        return self.to_logits(self.norm(tokens))

    def positions(self) -> Tensor:
        """Return what is known about each token apart from its input and the label: [L, width]."""
        return self.scale[self.scale_of] + self.position

    def bits(self, tokens: Tensor, inputs: Tensor, label: Tensor | None = None) -> Tensor:
        """Return −log₂ p(tokens | label), summed over all tokens of an image: [B]. Training minimizes its mean.

        Args:
            tokens: [B, L] int64, those of all scales, coarse to fine.
            inputs: [B, L − L_1, dim], `quantizer.scale_inputs(tokens, scales)`, made without a gradient unless the
                quantizer shall learn as well. With the pair (targets, indices) of
                `quantizer.encode_with_flips`, tokens are the targets and inputs come from the indices; the bits
                are then a loss and no longer a code length.
            label: [B] int64; in training mode some labels are dropped.
        """
        check_tokens("tokens", tokens, sum(self.counts), self.codebook_size)
        logits = self(inputs, label)
        if len(logits) != len(tokens):
            raise InputError(f"there are {len(tokens)} images of tokens and {len(logits)} of inputs")
        return F.cross_entropy(logits.mT, tokens, reduction="none").sum(1) / math.log(2)

    def start(self, batch: int, label: Tensor | None = None, *, guidance: float = 0.0) -> "NextScaleSteps":
        """Return the steps from the first scale on.

        Args: guidance: classifier-free guidance, see `NextScaleSteps`.

        Raises: InputError for unsuitable labels, or guidance without classes; ValueError for a batch or guidance
        below 0; RuntimeError in training mode.
        """
        check_evaluation(self)
        return NextScaleSteps(self, check_at_least("batch", batch, 0), label, guidance)


class NextScaleSteps:
    """Predicts one scale after the other, with cached keys and values. There are no gradients.

        steps, scales = prior.start(batch, label), quantizer.start_scales(batch, prior.scales)
        while steps.left:
            tokens = choose(steps.logits(scales.inputs))  # [B, n_k, K]
            scales.append(tokens)                         # [B, n_k]

    With guidance g, the logits of scale k = 0, …, S − 1 are (1 + g_k) · conditional − g_k · unconditional, where
    g_k = g · k / (S − 1) rises as in VAR; a single scale has g. Both kinds come from one pass over a batch of 2B.
    """

    def __init__(self, prior: NextScaleTransformer, batch: int, label: Tensor | None, guidance: float) -> None:
        self.prior = prior
        self.batch = batch
        self.guidance = guidance
        self.taken = 0  # scales so far
        with torch.no_grad():
            self.label = prior.label.for_guidance(label, batch, guidance)[:, None]
            self.positions = prior.positions().split(prior.counts)
        self.cache = AttentionCache(prior.blocks, len(self.label), sum(prior.counts))

    @property
    def left(self) -> int:
        """The number of scales that are not predicted yet."""
        return len(self.prior.scales) - self.taken

    @torch.no_grad()
    def logits(self, inputs: Tensor | None = None) -> Tensor:
        """Return the logits of the next scale, [B, n_k, K], and advance by it.

        Args: inputs: [B, n_k, dim], the part of `quantizer.scale_inputs` for this scale; None for the first.

        Raises: InputError for unsuitable inputs; RuntimeError after the last scale.
        """
        if not self.left:
            raise RuntimeError(f"all {self.taken} scales are predicted: there is no next one")
        self._check_inputs(inputs)
        tokens = self.label + self.positions[self.taken]
        if inputs is not None:
            latents = self.prior.from_latents(inputs)
            tokens = tokens + (torch.cat([latents, latents]) if self.guidance else latents)
        logits = self.prior.to_logits(self.prior.norm(self.cache.append(tokens)))
        if self.guidance:
            logits = guide(logits, guidance_at(self.guidance, self.taken, len(self.prior.scales)))
        self.taken += 1
        return logits

    def _check_inputs(self, inputs: Tensor | None) -> None:
        shape = (self.batch, self.prior.counts[self.taken], self.prior.dim) if self.taken else None
        given = None if inputs is None else tuple(inputs.shape)
        if given != shape:
            raise InputError(f"inputs of scale {self.taken + 1} are {_shaped(given)}, expected {_shaped(shape)}")


@torch.no_grad()
def sample_scales(
    prior: NextScaleTransformer,
    quantizer: PyramidQuantizer,
    batch: int,
    label: Tensor | None = None,
    *,
    guidance: float = 0.0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Sample the tokens of all scales, [batch, L] int64, in S forward passes; `quantizer.decode` takes them.

    Args:
        prior: in evaluation mode.
        quantizer: the multi-scale quantizer whose tokens the prior has learned.
        label: [batch] int64, for a prior with classes.
        guidance: see `NextScaleSteps`.
        generator: on the prior's device.
        Others: see `filter_logits`.

    Raises: InputError for a quantizer with other codebooks; the errors of `NextScaleTransformer.start` and of the
        filters.
    """
    sizes = {prior.codebook_size}
    if set(quantizer.codebook_sizes) != sizes:
        raise InputError(
            f"the quantizer's codebook sizes are {list(quantizer.codebook_sizes)}, expected "
            f"{prior.codebook_size} at all scales: the prior was built for that"
        )
    steps = prior.start(batch, label, guidance=guidance)
    scales = quantizer.start_scales(batch, prior.scales)
    while steps.left:
        logits = filter_logits(steps.logits(scales.inputs), temperature=temperature, top_k=top_k, top_p=top_p)
        scales.append(draw(logits, generator))
    return scales.indices


def _check_scales(scales: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the scales as a tuple. Raises: ValueError unless there are some, and no side ever falls."""
    checked = tuple(tuple(check_at_least("each side of scales", side, 1) for side in scale) for scale in scales)
    grids = bool(checked) and all(len(scale) == 2 for scale in checked)
    if not grids or any(
        low > high for one, other in itertools.pairwise(checked) for low, high in zip(one, other, strict=True)
    ):
        raise ValueError(f"scales are {list(scales)}, expected sizes (h, w) from the coarsest to the finest")
    return checked


def _shaped(shape: tuple[int, ...] | None) -> str:
    return "None" if shape is None else f"of shape {shape}"
