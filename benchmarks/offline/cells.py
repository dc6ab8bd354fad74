"""What is measured: the vectors, the codebook, and how many iterations the contenders may take."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.errors import InputError

KMEANS, RESIDUAL, PRODUCT, STREAM = "kmeans", "residual", "product", "stream"
SOURCES = ("patches", "features", "text")  # of vectors, see vectors.py, which this does not import for its torch
LARGEST = 10**9  # so that a typing error is reported instead of filling the disk
MOST_ITERATIONS = 25  # faiss's default
MULTIPLICATIONS = 6 * 10**11  # of a contender that reads all vectors in each iteration, at most
FEWER_MULTIPLICATIONS = 2 * 10**11  # where all start at the same seeds
MOST_FROM_SEEDS, LEAST = 10, 2


@dataclass(frozen=True)
class Cell:
    """One size.

    kind       of codebook: one by k-means ("kmeans"), residual, product, or one from a file that is read in
               blocks ("stream")
    source     of the vectors, in vectors.py
    n, d       vectors and channels
    k          codes per codebook
    codebooks  stages of a residual quantizer, groups of a product quantizer
    """

    kind: str
    source: str
    n: int
    d: int
    k: int
    codebooks: int = 1

    def __str__(self) -> str:
        times = f"{self.codebooks}x" if self.codebooks > 1 else ""
        return f"{self.kind} {self.source} {self.n}x{self.d} {times}{self.k}"

    @property
    def per_iteration(self) -> int:
        """Multiplications of all vectors with all codes of one codebook."""
        return self.n * self.d * self.k

    @property
    def iterations(self) -> int:
        """The most iterations over all vectors of a contender as its users call it.

        It depends on the sizes only, so that every machine does the same work.
        """
        return min(MOST_ITERATIONS, max(LEAST, MULTIPLICATIONS // self.per_iteration))

    @property
    def iterations_from_seeds(self) -> int:
        """The iterations of every contender that starts at the given seeds."""
        return min(MOST_FROM_SEEDS, max(LEAST, FEWER_MULTIPLICATIONS // self.per_iteration))


def _grid(n: int, *rows: tuple[str, int, int]) -> tuple[Cell, ...]:
    return tuple(Cell(KMEANS, source, n, d, k) for source, d, k in rows)


# Every kind of data meets every D and every K.
SMALL = _grid(
    10**5,
    ("text", 64, 64),
    ("patches", 64, 256),
    ("features", 64, 1024),
    ("patches", 256, 64),
    ("features", 256, 256),
    ("text", 256, 1024),
    ("features", 768, 64),
    ("text", 768, 256),
    ("patches", 768, 1024),
)
LARGE = _grid(
    10**6,
    ("features", 64, 256),
    ("patches", 64, 1024),
    ("text", 64, 2048),
    ("patches", 256, 256),
    ("text", 256, 1024),
    ("patches", 768, 256),
)
COMPOSED = (
    Cell(RESIDUAL, "features", 10**5, 64, 256, codebooks=4),
    Cell(RESIDUAL, "text", 10**5, 256, 256, codebooks=3),
    Cell(PRODUCT, "patches", 10**5, 64, 256, codebooks=8),
    Cell(PRODUCT, "features", 10**5, 256, 256, codebooks=16),
)
STREAMED = (Cell(STREAM, "patches", 10**7, 64, 1024),)
GROUPS = {"1e5": SMALL, "composed": COMPOSED, "1e7": STREAMED, "1e6": LARGE}  # in this order


def choose(words: Sequence[str]) -> tuple[Cell, ...]:
    """Return the cells that words name: groups, or single ones as `parse` reads them; all groups without words.

    Raises: InputError.
    """
    cells: list[Cell] = []
    for word in words or GROUPS:
        cells += GROUPS[word] if word in GROUPS else [parse(word)]
    return tuple(dict.fromkeys(cells))


def parse(word: str) -> Cell:
    """Read "kmeans:text:100000x64x256" as N, D, K, and "residual:text:100000x64x4x256" as N, D, codebooks, K.

    Raises: InputError.
    """
    kind, source, sizes = [*word.split(":"), "", ""][:3]
    composed = kind in (RESIDUAL, PRODUCT)
    form = r"(\d{1,10})x(\d{1,10})x(\d{1,10})" + (r"x(\d{1,10})" if composed else "")
    found = re.fullmatch(form, sizes)
    if kind not in (KMEANS, RESIDUAL, PRODUCT, STREAM) or source not in SOURCES or not found:
        raise InputError(
            f"--cells: got {word!r}; expected {', '.join(GROUPS)}, or a cell such as kmeans:text:100000x64x256 or "
            f"residual:text:100000x64x4x256, with the data {', '.join(SOURCES)}"
        )
    n, d, *codebooks, k = map(int, found.groups())
    cell = Cell(kind, source, n, d, k, *codebooks)
    if not all(1 <= size <= LARGEST for size in (n, d, k, *codebooks)) or k > n:
        raise InputError(
            f"--cells: got {word!r}; expected sizes from 1 to {LARGEST}, and no more codes than vectors"
        )
    if composed and k & (k - 1):
        raise InputError(f"--cells: got {word!r}; expected K to be a power of two, as faiss requires")
    if kind == PRODUCT and d % cell.codebooks:
        raise InputError(f"--cells: got {word!r}; expected D to be a multiple of the number of codebooks")
    return cell
