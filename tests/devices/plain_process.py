"""A pytest plugin for a process without Triton and without a compiler, as on many Windows and macOS machines.

Loaded with `-p`, it acts before the library is imported: Triton is not found, the PATH is empty, and no library
that was compiled before lies in the cache. The contract's tests under "compiled" then run by what the library
chooses.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings


class _WithoutTriton(PathFinder):
    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if name == "triton" else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = _WithoutTriton
settings.register_profile("brief", deadline=None, max_examples=3, suppress_health_check=list(HealthCheck))
CACHE = tempfile.TemporaryDirectory()
os.environ |= {"PATH": "", "QUANTIZERS_CACHE": CACHE.name}
for _variable in ("CXX", "TRITON_INTERPRET"):
    os.environ.pop(_variable, None)

from tests import implementations  # noqa: E402 - after the environment has changed
from tests.cases import Case  # noqa: E402


@contextlib.contextmanager
def _chosen(name: str) -> Iterator[None]:
    """Run a block under "reference", or under what the library chooses in place of "compiled"."""
    from quantizers.kernels.common.dispatch import use_implementation

    with use_implementation("auto" if name == "compiled" else name) as counts:
        yield
    assert not {"compiled", "triton"} & {implementation for _, implementation in counts}


implementations.under = _chosen


@pytest.fixture(autouse=True, scope="session")
def _said_once() -> None:
    """Hear the one sentence about the missing compiler; another one in a test would be an error."""
    import torch

    from quantizers.kernels.nearest.operation import nearest_code

    x = torch.zeros(1, 2, 3)
    with pytest.warns(RuntimeWarning, match=r"found no C\+\+ compiler[^\n]*\nSlower functions"):
        nearest_code(x, x)
    nearest_code(x, x)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the foundations of tests/cases.py, under what the library chooses."""
    items[:] = [item for item in items if _is_kept(getattr(item, "callspec", None))]


def _is_kept(call: pytest.Item | None) -> bool:
    parameters = getattr(call, "params", {})
    case = parameters.get("case")
    return isinstance(case, Case) and case.foundation and parameters.get("implementation") != "reference"
