"""A pytest plugin that plugs a quantizer into each model that a test builds, and writes the outcomes of the tests.

    python -m pytest -p benchmarks.peers.plugin --plug vq --mode constructor --outcomes out.json TESTS

There are two ways to plug in:

- documented: call `plug_in` after construction; `from_pretrained` is `quantizers.adapters.from_pretrained`.
- constructor: plug in at the end of the constructor, as a subclass would; `from_pretrained` is the library's own.

Without `--plug` nothing changes. With `--seed-draws` each initialization of this library's weights uses the same
seed: tests of transformers that compare the initial weights of two models seed before each of transformers' own
modules, but not before this library's.
"""

import functools
import importlib
import json
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from quantizers import plug_in
from quantizers.adapters import from_pretrained
from quantizers.core.state.initialization import SelfInitialized

MODES = ("documented", "constructor")
CLASSES = {
    "diffusers": ("VQModel",),
    "transformers": (
        "ChameleonForConditionalGeneration",
        "ChameleonModel",
        "DacModel",
        "Emu3ForConditionalGeneration",
        "Emu3Model",
        "EncodecModel",
        "HiggsAudioV2TokenizerModel",
        "JanusVQVAE",
        "MimiModel",
        "Wav2Vec2ForPreTraining",
        "XcodecModel",
    ),
}
MISSING = {  # imports of transformers' common tests that its source distribution lacks
    "tests.exporters.test_export": "ExportTesterMixin",
    "tests.generation.test_utils": "GenerationTesterMixin",
}

_loading = False
_constructing = 0  # number of nested models under construction
_outcomes: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plug", default=None, help="name of the quantizer")
    parser.addoption("--mode", choices=MODES, default="constructor")
    parser.addoption("--library", choices=sorted(CLASSES), required=True)
    parser.addoption(
        "--seed-draws", action="store_true", help="use one seed for each initialization of this library's weights"
    )
    parser.addoption("--outcomes", required=True, help="file to write")


def pytest_configure(config: pytest.Config) -> None:
    sys.modules["tests"] = types.ModuleType("tests")  # the checkout's tests, not this repository's
    sys.modules["tests"].__path__ = [str(config.rootpath / "tests")]
    for name, mixin in MISSING.items():
        _stand_in(name, mixin)
    quantizer = config.getoption("--plug")
    if quantizer is None:
        return
    library = importlib.import_module(config.getoption("--library"))
    for name in CLASSES[library.__name__]:
        _patch(getattr(library, name), quantizer, documented=config.getoption("--mode") == "documented")
    if config.getoption("--seed-draws"):
        for cls in _subclasses(SelfInitialized):
            _seed_draws(cls)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    before = _outcomes.get(report.nodeid, "passed")
    outcome = "failed" if "failed" in (before, report.outcome) else report.outcome
    if report.when == "call" or outcome != "passed":
        _outcomes[report.nodeid] = outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    text = json.dumps(dict(sorted(_outcomes.items())), indent=1)
    Path(session.config.getoption("--outcomes")).write_text(text + "\n", encoding="utf-8")


def _stand_in(name: str, mixin: str) -> None:
    """Create an empty class if a checkout has no module of that name."""
    try:
        importlib.import_module(name)
    except ImportError:
        package = name.rpartition(".")[0]
        for missing in (package, name):
            sys.modules.setdefault(missing, types.ModuleType(missing))
        setattr(sys.modules[name], mixin, type(mixin, (), {}))


def _patch(cls: Any, quantizer: str, *, documented: bool) -> None:
    construct = cls.__init__

    @functools.wraps(construct)
    def constructed(self: Any, *args: Any, **options: Any) -> None:
        with _construction():
            construct(self, *args, **options)
        if type(self) is cls and not _constructing and not (documented and _loading):
            plug_in(self, quantizer)

    cls.__init__ = constructed
    if documented:
        cls.from_pretrained = classmethod(_documented(cls.from_pretrained.__func__))


def _subclasses(cls: type) -> set[type]:
    return {cls}.union(*map(_subclasses, cls.__subclasses__()))


def _seed_draws(cls: Any) -> None:
    draw = vars(cls).get("reset_parameters")
    if draw is None:
        return

    @functools.wraps(draw)
    def seeded(self: Any) -> None:
        torch.manual_seed(0)
        draw(self)

    cls.reset_parameters = seeded


def _documented(load: Callable[..., Any]) -> Callable[..., Any]:
    """Return `from_pretrained` of this library, which calls the peer's."""

    def loaded(cls: Any, folder: Any, *args: Any, **options: Any) -> Any:
        if _loading:
            return load(cls, folder, *args, **options)
        with _load():
            return from_pretrained(cls, folder, *args, **options)

    return loaded


@contextmanager
def _construction() -> Iterator[None]:
    """Count nested constructors: a model with a head builds its base model inside its own, but needs one
    quantizer.
    """
    global _constructing
    _constructing += 1
    try:
        yield
    finally:
        _constructing -= 1


@contextmanager
def _load() -> Iterator[None]:
    global _loading
    _loading = True
    try:
        yield
    finally:
        _loading = False
