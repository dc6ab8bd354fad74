"""The examples in docstrings run, and every registered method has one."""

import doctest
import importlib.util
import inspect
import pkgutil

import pytest
import torch

import quantizers

FINDER = doctest.DocTestFinder(exclude_empty=True)
NAMES_OF_A_READER = {"quantizers": quantizers, "torch": torch}
"""Examples may use these names beside the names of their module."""


def modules_with_examples() -> list[str]:
    found = pkgutil.walk_packages(quantizers.__path__, "quantizers.")
    names = ["quantizers", *(each.name for each in found if not each.name.startswith("quantizers.kernels"))]
    specs = {name: importlib.util.find_spec(name) for name in names}
    return [name for name, spec in specs.items() if ">>>" in spec.loader.get_source(name)]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(verbose=False)
    report: list[str] = []
    for test in FINDER.find(module, extraglobs=NAMES_OF_A_READER):
        torch.manual_seed(0)
        runner.run(test, out=report.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(report)


def class_of(name: str) -> type[quantizers.Quantizer]:
    return type(quantizers.create(name, dim=6, codebook_size=64))


def names_of_the_library() -> list[str]:
    """The registered names whose classes are defined in this package."""
    built = {name: class_of(name) for name in quantizers.available()}
    return [name for name, cls in built.items() if cls.__module__.startswith("quantizers.")]


@pytest.mark.parametrize("name", names_of_the_library())
def test_every_registered_method_has_an_example(name: str) -> None:
    """In the docstring of the class that `create(name, ...)` builds."""
    built = class_of(name)
    examples = doctest.DocTestParser().get_examples(inspect.cleandoc(built.__doc__ or ""))
    assert examples, f"the docstring of {built.__name__}, which {name!r} builds, has no example"
    assert any(example.want for example in examples), f"the example of {built.__name__} prints nothing"
