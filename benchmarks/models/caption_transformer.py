"""A causal transformer over one stream: the words of a caption, then the codes of the image.

Ramesh et al.: Zero-Shot Text-to-Image Generation, 2021 (arXiv 2102.12092, section 2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.captions import PADDING
from benchmarks.errors import InputError
from benchmarks.models.attention import AttentionCache
from benchmarks.models.checks import check_tokens
from benchmarks.models.condition import Condition
from benchmarks.models.guidance import guide
from benchmarks.models.prior import Steps, bits_under
from benchmarks.models.transformer import Transformer, TransformerSteps
from quantizers.core.arguments.checks import Weight, check_as, check_at_least

TEXT_WEIGHT = 1 / 7  # the text's share of the loss to the image's, as in the paper: 1/8 to 7/8


@dataclass(frozen=True)
class Caption(Condition):
    """A condition of words, [B, T] int64, filled up with padding; padding alone is a caption that says nothing."""

    words: Tensor | None = None


class WordMap(nn.Module):
    """Embeds the words of a caption, [B, T, width]. Raises: InputError for an unsuitable condition."""

    def __init__(self, width: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.length = check_at_least("length", length, 1)
        self.embedding = nn.Embedding(check_at_least("vocabulary", vocabulary, 1), width)

    def forward(self, condition: Condition | None, batch: int, shape: tuple[int, int]) -> Tensor:
        if not isinstance(condition, Caption) or condition.words is None:
            raise InputError(f"the condition is {condition}; expected a Caption with words")
        words = condition.words
        check_tokens("words", words, self.length, self.embedding.num_embeddings)
        if len(words) != batch:
            raise InputError(f"there are {len(words)} captions, expected {batch}, one for each image")
        return self.embedding(words)


class CaptionTransformer(Transformer):
    """p(words) p(codes | words), by attention over the words and then the flattened codes.

    The stream s is word_0 … word_{T−1}, code_0 … code_{N−1}; p(s) = Π_t p(s_t | s_0 … s_{t−1}). A token is the
    embedding of the element before the predicted one, plus a learned vector for the place of the predicted one:
    its number in the caption, or its row, column and codebook in the image. Words and codes have embeddings and
    logits of their own. The codes' condition is a `Caption`, so that `bits` and `sample` are those of the image
    given the text.

    Args:
        sizes, width, layers, heads, largest, dropout: see `Transformer`.
        vocabulary: number of words, padding included.
        length: T, the number of words of a caption with its padding.

    Shapes: codes [B, h, w, n] int64, words [B, T] int64 → n logits [B, h, w, K_c].
    """

    def __init__(
        self, sizes: Sequence[int], width: int = 128, *, vocabulary: int, length: int, **options: Any
    ) -> None:
        super().__init__(sizes, width, **options)
        self.conditional = True
        self.condition_map = WordMap(width, vocabulary, length)
        self.word_place = nn.Parameter(torch.empty(length, width))
        self.to_word = nn.Linear(width, vocabulary)
        for table in (self.word_place, self.condition_map.embedding.weight):
            nn.init.normal_(table, std=0.02)

    def joint_bits(self, codes: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return −log₂ p(words) and −log₂ p(codes | words), [B] each. Raises: InputError for unsuitable ones."""
        of_words, of_codes = self._both_logits(*self._embed(codes, Caption(words=words)))
        nats = F.cross_entropy(of_words.movedim(-1, 1), words, reduction="none").sum(1)
        return nats / math.log(2), bits_under(of_codes, codes)

    def loss(self, codes: Tensor, words: Tensor, text_weight: float = TEXT_WEIGHT) -> Tensor:
        """Return the mean bits of a code plus `text_weight` times the mean bits of a word, padding included."""
        of_words, of_codes = self.joint_bits(codes, words)
        return of_codes.mean() / codes[0].numel() + text_weight * of_words.mean() / words.shape[1]

    def _logits(self, embedded: list[Tensor], context: Tensor | None) -> list[Tensor]:
        return self._both_logits(embedded, context)[1]

    def _both_logits(self, embedded: list[Tensor], words: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of the words, [B, T, V], and those of the codes, from all embeddings."""
        codes = torch.stack(embedded, 3)  # [B, h, w, n, width]
        batch, height, width = codes.shape[:3]
        before = torch.cat([self.first.expand(batch, 1, -1), words, codes.flatten(1, 3)[:, :-1]], 1)
        places = torch.cat([self.word_place[None], self.positions((height, width), None)], 1)
        text, image = self._features(before + places).tensor_split([words.shape[1]], 1)
        return self.to_word(text), self._heads(image.unflatten(1, (height, width, -1)))

    def _start(self, batch: int, shape: tuple[int, int], context: Tensor | None) -> Steps:
        return CaptionSteps(self, shape, context)


class CaptionSteps(TransformerSteps):
    """The steps of a transformer, whose caches begin with the words, embedded as [B, T, width]."""

    def __init__(self, prior: CaptionTransformer, shape: tuple[int, int], words: Tensor) -> None:
        super().__init__(prior, len(words), shape, None)
        self.cache = AttentionCache(prior.blocks, self.batch, words.shape[1] + self.left)
        for word, place in zip(words.unbind(1), prior.word_place, strict=True):
            self.cache.append((self.before + place)[:, None])
            self.before = word


class GuidedSteps(Steps):
    """Steps with classifier-free guidance, see `benchmarks.models.guidance.guide`.

    Args:
        both: the steps of the images with their captions, and then as many with empty ones.
        guidance: ≥ 0; 0 ignores the empty captions.
    """

    def __init__(self, both: Steps, guidance: float) -> None:
        super().__init__(both.sizes, both.batch // 2, both.shape)
        self.both = both
        self.guidance = guidance

    def _predict(self, row: int, column: int, codebook: int) -> Tensor:
        return guide(self.both.logits(), self.guidance)

    def _take(self, codes: Tensor, row: int, column: int, codebook: int) -> None:
        self.both.append(codes.repeat(2))


def start_guided(prior: CaptionTransformer, words: Tensor, shape: tuple[int, int], guidance: float) -> Steps:
    """Return steps for captions [B, T]; guidance needs a prior that was trained with some empty captions.

    Raises: ValueError for a guidance below 0 or not finite; the errors of `Prior.start`.
    """
    if not check_as(Weight, "guidance", guidance):
        return prior.start(len(words), shape, Caption(words=words))
    both = torch.cat([words, torch.full_like(words, PADDING)])
    return GuidedSteps(prior.start(len(both), shape, Caption(words=both)), guidance)
