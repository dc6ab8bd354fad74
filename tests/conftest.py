"""Every test runs seeded, and with uninitialised memory poisoned: `torch.empty` gives NaN."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.cases import Case

settings.register_profile(
    "default",
    deadline=None,  # shared machines stall
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.register_profile("quick", settings.get_profile("default"), max_examples=8)  # for `make versions`
settings.load_profile("default")


LEFT = pytest.StashKey[Counter[str]]()
"""How many tests are left to `make fuzz`, and why."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as long what the marks `foundations` and `methods` leave to `make fuzz`, and run slow tests first."""
    for item in items:
        case = getattr(getattr(item, "callspec", None), "params", {}).get("case")
        if not isinstance(case, Case) or case.foundation:
            continue
        if item.get_closest_marker("foundations"):
            item.add_marker(pytest.mark.long("a method that is built on a foundation"))
        elif item.get_closest_marker("methods") and case.is_variation:
            item.add_marker(pytest.mark.long("a variation of a method"))
    # A worker that began a slow test last would keep the others waiting.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT] = Counter()


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        if mark := item.get_closest_marker("long"):
            item.config.stash[LEFT][mark.args[0] if mark.args else "a long search"] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # a worker of pytest-xdist, which tells the main process
        session.config.workeroutput["left"] = dict(session.config.stash[LEFT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[LEFT] |= Counter(node.workeroutput.get("left", {}))  # each worker collects all tests


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    left = config.stash[LEFT]
    if left and not config.option.keyword:  # which deselects other tests, too
        reasons = ", ".join(f"{count} of {reason}" for reason, count in left.most_common())
        terminalreporter.write_line(f"{left.total()} tests are left to `make fuzz`: {reasons}")


@pytest.fixture(autouse=True)
def _seeded_and_poisoned() -> Iterator[None]:
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)  # among others, fills `torch.empty` with NaN
    torch.set_flush_denormal(False)  # libraries that Inductor compiles turn it on in torch 2.4
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small pictures, one of them in a subfolder and grey."""
    from PIL import Image  # here, since the tests of kernels also run on machines without it

    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    (folder / "sub").mkdir()
    Image.fromarray(noise[0]).save(folder / "a.png")
    Image.fromarray(noise[1]).save(folder / "b.jpg")
    Image.fromarray(noise[2, :, :, 0]).save(folder / "sub" / "grey.png")
    return folder


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """PyTorch's compiler without code of other tests: it gives up at the ninth graph of a function."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
