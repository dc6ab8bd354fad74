"""Captions of scikit-learn's digits: "a seven", "a bold three", "a thin wide nine".

An adjective says something that can be measured on the image, relative to the training images of the same digit:
the lowest third of a measure has one adjective, the highest third another, and the middle third none.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.digits import CLASSES, Digits
from benchmarks.errors import InputError

PADDING = 0  # fills a caption up to the fixed length; a caption of padding alone says nothing
PAPER = 1 / 8  # ink of a pixel, from 0 to 1, that is taken for paper where the ink's place is measured
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ARTICLES = ("a", "an")


class Vocabulary:
    """Numbers words, and turns captions into rows of these numbers and back.

    Args:
        words: the words that a caption may contain; 0 is padding, the first word is 1.
        length: T, the most words of a caption.
    """

    def __init__(self, words: Sequence[str], length: int) -> None:
        self.words = tuple(words)
        self.length = length
        self._numbers = {word: number for number, word in enumerate(self.words, PADDING + 1)}

    @property
    def size(self) -> int:
        """The number of words, padding included."""
        return len(self.words) + 1

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Return captions, words separated by spaces, as int64 [B, T].

        Raises: InputError for a word that is not in the vocabulary, and for a caption of more than T words.
        """
        rows = torch.full((len(captions), self.length), PADDING)
        for row, caption in zip(rows, captions, strict=True):
            numbers = [self._number(word, caption) for word in caption.split()]
            if len(numbers) > self.length:
                raise InputError(
                    f"the caption {caption!r} has {len(numbers)} words; expected at most {self.length}"
                )
            row[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        return rows

    def decode(self, rows: Tensor) -> list[str]:
        """Return the captions of rows [B, T] int64, as `encode` makes them.

        Raises: InputError for other shapes and dtypes, unknown numbers, and padding in front of a word.
        """
        if rows.dtype != torch.int64 or rows.dim() != 2 or rows.shape[1] != self.length:
            raise InputError(
                f"the words are {rows.dtype} of shape {tuple(rows.shape)}; expected torch.int64 [B, {self.length}]"
            )
        if ((rows < PADDING) | (rows >= self.size)).any():
            raise InputError(f"the words hold {rows.min()} to {rows.max()}; expected 0 to {self.size - 1}")
        if ((rows[:, :-1] == PADDING) & (rows[:, 1:] != PADDING)).any():
            raise InputError("the words hold padding in front of a word; expected it only at the end")
        return [" ".join(self.words[n - 1] for n in row if n != PADDING) for row in rows.tolist()]

    def _number(self, word: str, caption: str) -> int:
        if word not in self._numbers:
            raise InputError(
                f"the caption {caption!r} contains the unknown word {word!r}; expected words among: "
                + ", ".join(self.words)
            )
        return self._numbers[word]


def ink(images: Tensor) -> Tensor:
    """Return the mean of the pixels [N, 1, h, w] on a scale from 0, paper, to 1, ink: [N]."""
    return ((images + 1) / 2).flatten(1).mean(1)


def spread(images: Tensor) -> Tensor:
    """Return the standard deviation of the column at which the ink of images [N, 1, h, w] lies, in pixels: [N].

    Ink up to `PAPER` does not count, since the paper of decoded images is not quite white. The result is 0 for an
    image without ink.
    """
    columns = ((images + 1) / 2 - PAPER).clamp_min(0).sum((1, 2))  # [N, w]
    weights = columns / columns.sum(1, keepdim=True).clamp_min(1e-6)
    at = torch.arange(images.shape[-1], dtype=images.dtype)
    mean = (weights * at).sum(1, keepdim=True)
    return (weights * (at - mean).square()).sum(1).sqrt()


class Attribute(NamedTuple):
    """A measure of images [N, 1, h, w] → [N], with the adjectives for its lowest and its highest third."""

    name: str
    low: str
    high: str
    measure: Callable[[Tensor], Tensor]

    def adjective(self, third: int) -> str:
        """Return the adjective of the lowest (−1) or the highest third (1), and "" for the middle one (0)."""
        return ("", self.high, self.low)[third]


ATTRIBUTES = (Attribute("ink", "thin", "bold", ink), Attribute("width", "narrow", "wide", spread))
ADJECTIVES = tuple(each.adjective(third) for each in ATTRIBUTES for third in (-1, 1))
VOCABULARY = Vocabulary((*ARTICLES, *ADJECTIVES, *NUMBERS), length=2 + len(ATTRIBUTES))


def caption(digit: int, thirds: Sequence[int]) -> str:
    """Return an article, the adjectives for the third of each attribute (−1, 0 or 1), and the number."""
    adjectives = (each.adjective(third) for each, third in zip(ATTRIBUTES, thirds, strict=True))
    words = [*filter(None, adjectives), NUMBERS[digit]]
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


class Captioner:
    """Describes digits, by the terciles of each attribute among the training images of the same digit.

    Args:
        train: the training digits; every digit must occur.
    """

    def __init__(self, train: Digits) -> None:
        bounds = torch.tensor([1 / 3, 2 / 3])
        of_digits = [train.images[train.labels == digit] for digit in range(CLASSES)]
        self.limits = torch.stack(
            [torch.stack([each.measure(images).quantile(bounds) for each in ATTRIBUTES]) for images in of_digits]
        )  # [10, A, 2]

    def thirds(self, digits: Digits) -> Tensor:
        """Return −1, 0 or 1, int64 [N, A]: the lowest, middle or highest third among images of the same digit."""
        measured = torch.stack([each.measure(digits.images) for each in ATTRIBUTES], 1)
        lower, upper = self.limits[digits.labels].unbind(-1)
        return (measured > upper).long() - (measured < lower).long()

    def __call__(self, digits: Digits) -> list[str]:
        """Return the caption of each image."""
        return list(map(caption, digits.labels.tolist(), self.thirds(digits).tolist()))
