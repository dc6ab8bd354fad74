"""How well a linear map finds the vowel of a frame, from an encoder's features or from the frame itself."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.examples.heard import corpora, hidden, masks
from benchmarks.examples.utterances import VOWELS

LABELLED = 16, 64  # utterances that the map is fitted to: for frames that are heard, and for hidden ones

Features = Callable[[Tensor], Tensor]  # frames [B, T, DIM] → features [B, T, D]


def vowels(encode: Features, seed: int) -> dict[str, float]:
    """Return the percentage of held-out frames with a vowel in which a linear map finds it: of the frames that the
    encoder hears, and of those that are hidden from it.

    The map is a logistic regression, fitted to the vowels of a few labelled utterances of the training set.
    """
    for_heard, for_hidden = LABELLED
    return {
        "heard_vowels_percent": _found(encode, seed, for_heard, hide=False),
        "hidden_vowels_percent": _found(encode, seed, for_hidden, hide=True),
    }


@torch.no_grad()
def _found(encode: Features, seed: int, labelled: int, *, hide: bool) -> float:
    generator = torch.Generator().manual_seed(0)
    parts: list[tuple[Tensor, Tensor]] = []
    trained, held_out = corpora(seed)
    for corpus, count in ((trained, labelled), (held_out, len(held_out.vowels))):
        frames, sounding = corpus.noisy[:count], corpus.vowels[:count]
        chosen = sounding >= 0
        if hide:
            mask = masks(*sounding.shape, generator)
            frames, chosen = hidden(frames, mask, generator), chosen & mask
        features = encode(frames)
        parts.append((features[chosen], sounding[chosen]))
    (x, y), (given, expected) = parts
    mean, deviation = x.mean(0), x.std(0)
    probe = linear_probe((x - mean) / deviation, y)
    return percent(probe((given - mean) / deviation).argmax(-1) == expected)


@torch.enable_grad()
def linear_probe(x: Tensor, y: Tensor) -> nn.Linear:
    """Fit a multinomial logistic regression to vectors [N, D] and classes [N], with a small weight decay."""
    probe = nn.Linear(x.shape[1], len(VOWELS))
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(probe(x), y) + 1e-3 * probe.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return probe.requires_grad_(False)


def percent(right: Tensor) -> float:
    """Return the percentage of a bool tensor that is True."""
    return 100 * right.float().mean().item()
