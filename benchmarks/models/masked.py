"""A bidirectional transformer that fills a grid of codes in a few passes.

Chang et al.: MaskGIT: Masked Generative Image Transformer, 2022 (arXiv 2202.04200).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.errors import InputError
from benchmarks.models.attention import AttentionBlock, stack_blocks
from benchmarks.models.checks import check_codes, check_evaluation, check_grid
from benchmarks.models.guidance import LabelEmbedding, guidance_at, guide
from benchmarks.models.sampling import draw, filter_logits
from quantizers.core.arguments.checks import Weight, check_as, check_at_least


class MaskedTransformer(nn.Module):
    """p(missing code | known codes, label), for each missing code of a grid by itself.

    A token is the embedding of a code, or of the mask token K where the code is missing, plus learned vectors of
    its row and column, plus the embedding of the label. All tokens see each other.

    There is no likelihood of an image: the model predicts missing codes from any known ones, and these predictions
    need not belong to one joint distribution. `loss` therefore does not compare with the `bits` of other priors.

    An image takes as many forward passes as `fill` is asked for.

    Args:
        codebook_size: K, the number of codes. A quantizer with several codebooks has no such prior.
        width: channels of a token, a multiple of `heads`.
        layers: number of blocks ≥ 1.
        heads: number of attention heads.
        largest: (h, w), the largest grid; smaller ones work as well.
        dropout: dropout rate of each layer's output, in [0, 1).
        classes: number of labels; None for a prior without labels.
        label_dropout: probability that a label is dropped in training, for guidance.

    Shapes: codes [B, h, w] int64 in [0, K], label [B] int64 → logits [B, h, w, K].

    Raises: ValueError for invalid sizes; InputError, in use, for unsuitable codes or labels.
    """

    def __init__(
        self,
        codebook_size: int,
        width: int = 128,
        *,
        layers: int = 4,
        heads: int = 4,
        largest: tuple[int, int] = (32, 32),
        dropout: float = 0.0,
        classes: int | None = None,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.codebook_size = check_at_least("codebook_size", codebook_size, 1)
        self.width = check_at_least("width", width, 1)
        self.largest = tuple(check_at_least("each of largest", side, 1) for side in largest)
        self.label = LabelEmbedding(classes, width, label_dropout)
        self.embedding = nn.Embedding(codebook_size + 1, width)
        self.row = nn.Parameter(torch.empty(self.largest[0], width))
        self.column = nn.Parameter(torch.empty(self.largest[1], width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = stack_blocks(AttentionBlock, layers, width, heads, dropout)
        self.norm = nn.LayerNorm(width)
        self.to_logits = nn.Linear(width, codebook_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw embeddings and positions from N(0, 0.02²). The layers initialize themselves."""
        for table in (self.embedding.weight, self.row, self.column):
            nn.init.normal_(table, std=0.02)

    @property
    def mask_token(self) -> int:
        """K, which stands for a missing code."""
        return self.codebook_size

    def forward(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the logits of the code at every position, [B, h, w, K], missing or not."""
        return self.predict(codes, self.label(label, len(codes)))

    def predict(self, codes: Tensor, label: Tensor) -> Tensor:
        """Like `forward`, with embedded labels [B, width]."""
        check_codes("codes", codes[..., None], (self.codebook_size + 1,))
        height, width = codes.shape[1:]
        check_grid(height, width, self.largest)
        positions = self.row[:height, None] + self.column[:width]  # [h, w, width]
        tokens = self.embedding(codes) + positions + label[:, None, None]
        tokens = self.dropout(tokens.flatten(1, 2))
        for block in self.blocks:
            tokens = block(tokens)
        return self.to_logits(self.norm(tokens)).unflatten(1, (height, width))

    def loss(self, codes: Tensor, label: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """Return the mean cross entropy of the missing codes, in bits a code: a 0-d tensor.

        Of each image's codes the share cos(π/2 · u) is missing, rounded up, with u uniform in [0, 1).

        Args:
            codes: [B, h, w, 1] int64, a batch that is not empty.
            label: [B] int64; in training mode some labels are dropped.
            generator: of the missing codes, on their device.
        """
        self._check_whole(codes)
        codes = codes[..., 0]
        missing = draw_missing(codes.shape, generator)
        logits = self(codes.masked_fill(missing, self.mask_token), label)
        return F.cross_entropy(logits[missing], codes[missing]) / math.log(2)

    def _check_whole(self, codes: Tensor) -> None:
        if codes.dim() == 4 and codes.shape[-1] > 1:
            raise InputError(
                f"codes have {codes.shape[-1]} codebooks, expected one: "
                "a masked transformer predicts one code at each position"
            )
        check_codes("codes", codes, (self.codebook_size,))
        if not len(codes):
            raise InputError("codes are an empty batch, expected at least one image: the loss is a mean")


def draw_missing(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Draw which codes of each image are missing: bool [B, h, w], at least one in each image."""
    batch, height, width = shape
    device = generator.device
    share = torch.rand(batch, 1, generator=generator, device=device).mul(math.pi / 2).cos()
    count = (share * height * width).ceil().clamp(min=1)
    order = torch.rand(batch, height * width, generator=generator, device=device).argsort(1)
    return (order.argsort(1) < count).view(shape)


def missing_after(passes: int, codes: int) -> list[int]:
    """Return how many codes are still missing after each pass: codes · cos(π/2 · t / passes) after pass t, rounded
    down, but such that every pass sets at least one.

    >>> missing_after(4, 16)
    [14, 11, 6, 0]
    """
    missing = [codes]
    for done in range(1, passes + 1):
        planned = math.floor(codes * math.cos(math.pi / 2 * done / passes))
        missing.append(min(missing[-1] - 1, max(planned, passes - done)))
    return missing[1:]


@torch.no_grad()
def fill(
    prior: MaskedTransformer,
    batch: int,
    shape: tuple[int, int],
    label: Tensor | None = None,
    *,
    passes: int = 8,
    guidance: float = 0.0,
    temperature: float = 1.0,
    choice_temperature: float = 4.5,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Sample codes [batch, h, w, 1] int64 for `shape` (h, w), in exactly `passes` forward passes.

    Each pass draws all missing codes and keeps the most confident ones, as many as `missing_after` says. The
    confidence of a code is its log-probability plus choice_temperature · (1 − t / passes) · Gumbel noise in pass
    t = 1, …, passes. Codes that are kept never change.

    The log-probability is the model's, before the filters: otherwise a temperature of 0 would make all codes
    equally confident.

    Args:
        prior: in evaluation mode.
        passes: between 1 and h · w.
        guidance: classifier-free guidance g: the logits of pass t are (1 + g_t) · conditional − g_t ·
            unconditional, where g_t rises linearly from 0 in the first pass to g in the last, as in Muse (Chang et
            al. 2023, arXiv 2301.00704). Both kinds come from one pass over a batch of 2B.
        temperature, top_k, top_p: see `filter_logits`.
        choice_temperature: at 0, the most probable of the drawn codes are kept.
        generator: on the prior's device.

    Raises: InputError for an unsuitable grid, label, guidance or number of passes; ValueError for temperatures,
        guidance and filters out of range; RuntimeError in training mode.
    """
    check_evaluation(prior)
    choice_temperature = check_as(Weight, "choice_temperature", choice_temperature)
    check_at_least("batch", batch, 0)
    count = _check_passes(passes, shape)
    embedded = prior.label.for_guidance(label, batch, guidance)
    codes = embedded.new_full((batch, count), prior.mask_token, dtype=torch.int64)
    for taken, missing in enumerate(missing_after(passes, count)):
        grids = codes.view(batch, *shape)
        logits = prior.predict(torch.cat([grids, grids]) if guidance else grids, embedded).flatten(1, 2)
        if guidance:
            logits = guide(logits, guidance_at(guidance, taken, passes))
        filtered = filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p)
        drawn = draw(filtered, generator)
        noise = choice_temperature * (1 - (taken + 1) / passes)
        confidence = logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
        confidence = confidence + noise * gumbel(confidence, generator)
        codes = _keep(codes, drawn, confidence, codes != prior.mask_token, count - missing)
    return codes.view(batch, *shape, 1)


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw finite standard Gumbel noise of the shape and dtype of `like`."""
    return -torch.empty_like(like).exponential_(generator=generator).clamp(min=torch.finfo(like.dtype).tiny).log()


def _keep(codes: Tensor, drawn: Tensor, confidence: Tensor, known: Tensor, count: int) -> Tensor:
    """Return codes [B, n] with the most confident of the drawn ones set, so that `count` of them are known."""
    order = confidence.masked_fill(known, torch.inf).argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(known).scatter(1, order[:, :count], True)
    return drawn.where(kept & ~known, codes)


def _check_passes(passes: int, shape: tuple[int, int]) -> int:
    """Return the number of codes of a grid. Raises: InputError unless they take so many passes."""
    if len(shape) != 2 or min(shape) < 1:
        raise InputError(f"the grid has shape {tuple(shape)}, expected (h, w) of at least 1 each")
    count = math.prod(shape)
    if not 1 <= passes <= count:
        raise InputError(
            f"passes is {passes}, expected 1 to {count}: every pass sets at least one of the {count} codes"
        )
    return count
