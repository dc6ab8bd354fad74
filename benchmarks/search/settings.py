"""What the benchmark measures, and at which sizes."""

from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.errors import InputError
from benchmarks.offline.vectors import BLOCKS

TEXT = "text"  # the vectors that are the items of semantic IDs


DEPTHS = (1, 10)  # R of recall@R
DEEPEST = max(DEPTHS)


@dataclass(frozen=True)
class Settings:
    """Sizes of compressed search.

    kinds            the vectors, see `benchmarks.offline.vectors`
    dim              D, channels of a vector
    train            training vectors of every code
    base, queries    vectors that are searched, and vectors that are searched for; no vector is in two sets
    codebooks        the numbers of codebooks, each of which is a rate: codebooks · log2 codebook_size bits
    codebook_size    K, codes in each codebook
    beam_width       of the beam search over the stages; 5 is the default of faiss.ResidualQuantizer
    slow_codebooks   the numbers of codebooks at which slow methods (QINCo) take part, with the first seed only
    qinco_steps      gradient steps of QINCo, after its k-means start
    qinco_batch      vectors in each step
    """

    kinds: tuple[str, ...] = tuple(BLOCKS)
    seeds: tuple[int, ...] = (0, 1, 2)
    dim: int = 64
    train: int = 15_000
    base: int = 20_000
    queries: int = 1_000
    codebooks: tuple[int, ...] = (4, 8)
    codebook_size: int = 256
    beam_width: int = 5
    slow_codebooks: tuple[int, ...] = (4,)
    qinco_steps: int = 100
    qinco_batch: int = 1024

    @property
    def bits_per_code(self) -> int:
        """log2 K. Faiss has codebooks of two to the power of a whole number only."""
        return self.codebook_size.bit_length() - 1


@dataclass(frozen=True)
class Items:
    """Sizes of semantic IDs.

    kind     the vectors
    counts   numbers of items
    shapes   levels and codes of each level; both of the default have 24 bits
    probes   items whose true nearest neighbour is compared
    """

    kind: str = TEXT
    seeds: tuple[int, ...] = (0, 1, 2)
    dim: int = 64
    counts: tuple[int, ...] = (10_000, 50_000)
    shapes: tuple[tuple[int, int], ...] = ((3, 256), (4, 64))
    probes: int = 2_000


@dataclass(frozen=True)
class Caching:
    """Sizes of the compression of a transformer's keys and values.

    width, heads, layers, length   of the transformer and its windows of text, in bytes
    steps, batch_size              of its training; without a step the measurement is left out
    windows                        whose keys and values codes are fitted to, and as many others to measure on
    codebooks                      the numbers of codebooks for a key or value, each of which is a rate
    """

    seed: int = 0
    width: int = 128
    heads: int = 2
    layers: int = 2
    length: int = 64
    steps: int = 500
    batch_size: int = 32
    learning_rate: float = 1e-3
    windows: int = 64
    codebooks: tuple[int, ...] = (4, 8, 16)
    codebook_size: int = 256

    @property
    def channels(self) -> int:
        """Channels of a key or a value."""
        return self.width // self.heads


class Chosen(NamedTuple):
    """The sizes of a whole run."""

    search: Settings
    items: Items
    caching: Caching


def check(settings: Settings) -> None:
    """Raises: InputError for sizes that the methods cannot have."""
    if settings.codebook_size != 1 << settings.bits_per_code:
        raise InputError(f"codebook_size is {settings.codebook_size}, expected a power of two: faiss has no other")
    for count in settings.codebooks:
        if settings.dim % count:
            raise InputError(
                f"--codebooks: got {count}; expected a divisor of --dim, {settings.dim}, because the groups of "
                "product codes have one width"
            )
    if settings.train < settings.codebook_size:
        least = settings.codebook_size
        raise InputError(f"--train: got {settings.train}; expected at least one vector for each code, {least}")
    if settings.base < DEEPEST:
        raise InputError(f"--base: got {settings.base}; expected at least {DEEPEST}, the largest R of recall@R")
