"""Keys and values of a transformer's cache as codes: the attention's error, and its cost in bits per byte."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.models.transformer import Transformer
from benchmarks.search import cached_attention, ours
from benchmarks.search.cached_attention import Projections
from benchmarks.search.measures import relative_error
from benchmarks.search.settings import Caching

Compress = Callable[[Tensor], Tensor]
Pair = tuple[Compress, Compress]  # for the keys and for the values of one layer

NONE = "none"
FLOAT_BITS = 32.0


class Compression(NamedTuple):
    """A way to compress vectors.

    bits  per channel
    fit   from training vectors [n, channels], returns a function from vectors [m, channels] to their decoded codes
    """

    method: str
    bits: float
    fit: Callable[[Tensor], Compress]


def rows(settings: Caching) -> list[dict[str, Any]]:
    """Train a transformer, and compress the keys and values of held-out text in each way."""
    model = cached_attention.train(settings)
    generator = torch.Generator().manual_seed(settings.seed)
    train, held_out = (
        cached_attention.windows(source, settings.windows, settings, generator)
        for source in cached_attention.text()
    )
    seen, unseen = (cached_attention.projections(model, codes) for codes in (train, held_out))
    cost = bits_per_byte(model, held_out)
    found = [{"method": NONE, "bits": FLOAT_BITS, "error": 0.0, "attention_error": 0.0, "bits_per_byte": cost}]
    for method, bits, fit in compressions(settings):
        pairs = [(fit(_vectors(layer.key)), fit(_vectors(layer.value))) for layer in seen]
        found.append({"method": method, "bits": bits, **numbers(model, held_out, unseen, pairs)})
    return found


def compressions(settings: Caching) -> list[Compression]:
    """Return product and residual codes at each rate, and rounding where a channel has a whole number of bits."""
    size, made = settings.codebook_size, []
    for count in settings.codebooks:
        bits = count * (size.bit_length() - 1) / settings.channels
        made += [
            Compression("product", bits, _coder("grouped", num_groups=count, codebook_size=size)),
            Compression("residual", bits, _coder("residual", num_quantizers=count, codebook_size=size)),
        ]
        if bits.is_integer():
            made.append(Compression("rounding", bits, partial(rounding, levels=2 ** int(bits))))
    return made


@torch.no_grad()
def numbers(
    model: Transformer, held_out: Tensor, layers: Sequence[Projections], pairs: Sequence[Pair]
) -> dict[str, float]:
    """Return means over layers, and the model's bits per byte.

    error: of keys and values, relative to their variance. attention_error: of the attention's output for the same
    queries, relative to its variance. bits_per_byte: with all layers compressed, so that errors add up.
    """

    def change(layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return compressed(pairs[layer], key, value)

    errors = []
    for layer, pair in zip(layers, pairs, strict=True):
        key, value = compressed(pair, layer.key, layer.value)
        attended = layer._replace(key=key, value=value).attend()
        compared = ((layer.key, key), (layer.value, value), (layer.attend(), attended))
        errors.append([relative_error(_vectors(exact), _vectors(found)) for exact, found in compared])
    of_key, of_value, of_attention = torch.tensor(errors).mean(0).tolist()
    with cached_attention.changed(model, change):
        cost = bits_per_byte(model, held_out)
    return {"error": (of_key + of_value) / 2, "attention_error": of_attention, "bits_per_byte": cost}


@torch.no_grad()
def bits_per_byte(model: Transformer, codes: Tensor) -> float:
    return (model.bits(codes).sum() / codes.numel()).item()


def compressed(pair: Pair, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Compress the key and the value of each token and head: [B, heads, T, channels] each."""
    of_key, of_value = pair
    return of_key(_vectors(key)).view_as(key), of_value(_vectors(value)).view_as(value)


def rounding(vectors: Tensor, levels: int) -> Compress:
    """Round each channel to the middles of equal intervals between its smallest and largest training value."""
    low, high = vectors.amin(0), vectors.amax(0)
    width = (high - low) / levels

    def compress(x: Tensor) -> Tensor:
        return low + width * (((x - low) / width).floor().clamp(0, levels - 1) + 0.5)

    return compress


def _coder(name: str, **sizes: int) -> Callable[[Tensor], Compress]:
    def fit(vectors: Tensor) -> Compress:
        quantizer = ours.fitted(name, vectors, 0, **sizes)
        return lambda x: quantizer.decode(quantizer.encode(x))

    return fit


def _vectors(x: Tensor) -> Tensor:
    """Return [B, heads, T, channels] as vectors [n, channels]."""
    return x.reshape(-1, x.shape[-1])
