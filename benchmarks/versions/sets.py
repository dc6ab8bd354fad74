"""The releases of PyTorch, Python, NumPy and Triton that are tested together."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.errors import InputError
from benchmarks.machine import ROOT


@dataclass(frozen=True)
class VersionSet:
    """Releases for one environment.

    python  minor release, such as "3.10"
    triton  the release that this PyTorch's CUDA build for Linux requires
    """

    torch: str
    python: str
    numpy: str
    triton: str

    @property
    def name(self) -> str:
        return f"torch-{self.torch}-python-{self.python}"

    @property
    def pins(self) -> dict[str, str]:
        """The distributions to install at exact releases."""
        return {"torch": self.torch, "numpy": self.numpy, "triton": self.triton}


def pinned() -> dict[str, str]:
    """Return the release of each distribution in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def _tested() -> VersionSet:
    pins = pinned()
    return VersionSet(pins["torch"], "3.11", pins["numpy"], pins["triton"])


SETS = (
    VersionSet("2.4.1", "3.10", "1.26.4", "3.0.0"),  # the oldest that pyproject.toml allows
    VersionSet("2.6.0", "3.10", "1.26.4", "3.2.0"),
    VersionSet("2.8.0", "3.12", "2.2.6", "3.4.0"),
    _tested(),  # what `make test` runs with
    VersionSet("2.15.0", "3.13", "2.4.6", "3.9.0"),
)
"""From the oldest to the newest."""


def choose(releases: Sequence[str]) -> tuple[VersionSet, ...]:
    """Return the sets with these releases of torch; all without any. Raises: InputError."""
    known = [each.torch for each in SETS]
    if unknown := [release for release in releases if release not in known]:
        raise InputError(f"--sets: got {unknown[0]!r}; expected releases of torch among {', '.join(known)}")
    return tuple(each for each in SETS if not releases or each.torch in releases)
