"""Everything that is compared, by name. Importing this imports none of the libraries.

e-means of scikit-learn-contrib is not on PyPI, so it is not among them.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.offline.cells import KMEANS, PRODUCT, RESIDUAL, STREAM, Cell
from benchmarks.offline.tasks import Fit

LARGEST_BOUNDS = 2 * 2**30  # bytes


def _elkan_bounds(cell: Cell) -> int:
    """The distances from all vectors to all codes that Elkan's algorithm keeps bounds of, in bytes."""
    return 4 * cell.n * cell.k


@dataclass(frozen=True)
class Contender:
    """One way to fit a codebook.

    name        in tables and in the JSON
    fit         module of benchmarks.offline and function, imported in the process that runs it
    package     import name of the library
    kind        of the cells that it fits
    from_seeds  whether it takes a given number of iterations from the shared seeds, rather than being called as
                its users call it
    ours        whether it is this library's
    bounds      bytes that it allocates for a cell; it is left out above LARGEST_BOUNDS
    """

    name: str
    fit: str
    package: str
    kind: str = KMEANS
    from_seeds: bool = False
    ours: bool = False
    bounds: Callable[[Cell], int] | None = None

    def load(self) -> Fit:
        """Import the function that fits."""
        module, _, function = self.fit.partition(":")
        fit: Fit = getattr(importlib.import_module(f"benchmarks.offline.{module}"), function)
        return fit

    def fits(self, cell: Cell) -> bool:
        """Whether it can fit this cell."""
        return self.kind == cell.kind and (self.bounds is None or self.bounds(cell) <= LARGEST_BOUNDS)


def _ours(name: str, function: str, kind: str = KMEANS, from_seeds: bool = False) -> Contender:
    return Contender(name, f"our_fits:{function}", "quantizers", kind, from_seeds, ours=True)


def _faiss(name: str, function: str, kind: str = KMEANS, from_seeds: bool = False) -> Contender:
    return Contender(name, f"faiss_fits:{function}", "faiss", kind, from_seeds)


def _sklearn(name: str, function: str, kind: str = KMEANS, from_seeds: bool = False) -> Contender:
    bounds = _elkan_bounds if function.startswith("elkan") else None
    return Contender(name, f"sklearn_fits:{function}", "sklearn", kind, from_seeds, bounds=bounds)


CONTENDERS = (
    _ours("ours, same seeds", "from_seeds", from_seeds=True),
    _faiss("faiss, same seeds", "from_seeds", from_seeds=True),
    _sklearn("scikit-learn, same seeds", "lloyd_from_seeds", from_seeds=True),
    _sklearn("scikit-learn elkan, same seeds", "elkan_from_seeds", from_seeds=True),
    _ours("ours", "nested"),
    _ours("ours, twice as many passes", "twice_as_many_passes"),
    _ours("ours lloyd", "lloyd"),
    _ours("ours minibatch", "minibatch"),
    _faiss("faiss", "as_called"),
    _faiss("faiss, all vectors", "all_vectors"),
    _sklearn("scikit-learn", "lloyd"),
    _sklearn("scikit-learn elkan", "elkan"),
    _sklearn("scikit-learn minibatch", "minibatch"),
    _ours("ours residual", "residual", RESIDUAL),
    _faiss("faiss residual", "residual", RESIDUAL),
    _faiss("faiss residual, beam 1", "residual_greedy", RESIDUAL),
    _ours("ours product", "product", PRODUCT),
    _ours("ours rotated product", "optimized_product", PRODUCT),
    _faiss("faiss product", "product", PRODUCT),
    _faiss("faiss rotated product", "optimized_product", PRODUCT),
    _ours("ours, from a file", "streamed", STREAM),
    _sklearn("scikit-learn minibatch, from a file", "streamed", STREAM),
)
BY_NAME = {contender.name: contender for contender in CONTENDERS}


def usable(contenders: Iterable[Contender]) -> tuple[list[Contender], list[str]]:
    """Return the contenders whose library is installed, and a sentence on each library that is not."""
    wanted = list(contenders)
    missing = sorted({each.package for each in wanted if importlib.util.find_spec(each.package) is None})
    sentences = [f"The package {package} is not installed; its contenders are left out." for package in missing]
    return [each for each in wanted if each.package not in missing], sentences
