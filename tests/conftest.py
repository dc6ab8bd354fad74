"""Every test runs seeded, and with uninitialised memory poisoned: `torch.empty` gives NaN."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

import quantizers
from tests.cases import Case

settings.register_profile(
    "default",
    deadline=None,  # shared machines stall
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.register_profile("quick", settings.get_profile("default"), max_examples=8)  # `make test`, `make versions`
settings.register_profile("fewest", settings.get_profile("default"), max_examples=3)  # for Triton's interpreter
settings.load_profile("default")


FEW = 3
"""So many tests of one function run in any case."""

DOCUMENTS = Path(__file__).parent / "docs"
"""The tests in this folder always run: their cases are no cases of a law, but blocks of code and pages."""

LEFT = pytest.StashKey[Counter[str]]()
"""How many tests are left to `make fuzz`, and why."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--share",
        type=int,
        default=1,
        metavar="N",
        help="of a test with many cases, run plain foundations and one in N of the others; not with -k",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as long what is left to `make fuzz`, and run slow tests first."""
    leave_by_marks(items)
    if config.option.share > 1 and not config.option.keyword:
        leave_by_share([item for item in items if _is_shared(item)], config.option.share)
    # A worker that began a slow test last would keep the others waiting.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _case_of(item: pytest.Item) -> Case | None:
    case = getattr(getattr(item, "callspec", None), "params", {}).get("case")
    return case if isinstance(case, Case) else None


def _is_shared(item: pytest.Item) -> bool:
    return item.get_closest_marker("long") is None and DOCUMENTS not in item.path.parents


def leave_by_marks(items: Iterable[pytest.Item]) -> None:
    """Mark as long what the marks `foundations` and `methods` leave out."""
    for item in items:
        case = _case_of(item)
        if case is None or case.foundation:
            continue
        if item.get_closest_marker("foundations"):
            item.add_marker(pytest.mark.long("a method that is built on a foundation"))
        elif item.get_closest_marker("methods") and case.is_variation:
            item.add_marker(pytest.mark.long("a variation of a method"))


def leave_by_share(items: Iterable[pytest.Item], share: int) -> None:
    """Mark as long all but one in `share` of the tests of a function that has many.

    A digest of its name places each test, so that every run, machine and worker leaves the same ones, and each
    function others: every method is tested by its share of the laws that have cases. Plain foundations are not
    left, except by slow tests.
    """
    functions: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        case = _case_of(item)
        is_slow = item.get_closest_marker("slow") is not None
        if is_slow or case is None or not case.foundation or case.is_variation:
            functions[item.nodeid.partition("[")[0]].append(item)
    for others in functions.values():
        others.sort(key=lambda item: hashlib.sha256(item.nodeid.encode()).digest())
        for item in others[max(FEW, -(-len(others) // share)) :]:
            item.add_marker(pytest.mark.long("a further case"))


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
    output = getattr(node, "workeroutput", {})  # which a worker that crashed has not sent
    node.config.stash[LEFT] |= Counter(output.get("left", {}))  # each worker collects all tests


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


@pytest.fixture(autouse=True, scope="session")
def _unused_codes_are_no_news() -> None:
    """Tests train codebooks that die; tests/core/test_unused_codes.py switches the warning on."""
    quantizers.warn_unused_codes(False)


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
def effort(pytestconfig: pytest.Config) -> list[str]:
    """Options with which another pytest runs the same share of cases, and as many examples of each law."""
    profile = pytestconfig.getoption("--hypothesis-profile")
    return [f"--share={pytestconfig.option.share}", *([f"--hypothesis-profile={profile}"] if profile else [])]


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """PyTorch's compiler without code of other tests: it gives up at the ninth graph of a function."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
