"""Run every check on every subject, each freshly built."""

import importlib.util
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from benchmarks.kernels.rivals import PEER
from benchmarks.kernels.timing import first_line
from benchmarks.robustness.checks import CHECKS, Check, Value
from benchmarks.robustness.subjects import BUILDERS, OURS, NotApplicableError, Subject

SEED = 0
Build = Callable[[], Subject]
Builders = dict[str, dict[str, Build]]


@dataclass
class Result:
    """The results of one check for each library and method; None if the check does not apply.

    failures: the first lines of the exceptions, by library and method.
    """

    check: Check
    values: dict[str, dict[str, Value | None]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass
class Results:
    """All results of a run, in the order in which they were obtained."""

    done: list[Result] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    interrupted: bool = False


def installed() -> tuple[Builders, list[str]]:
    """Return the subjects that can be built here, and a sentence on a missing library."""
    if importlib.util.find_spec("vector_quantize_pytorch") is not None:
        return BUILDERS, []
    return {OURS: BUILDERS[OURS]}, [f"{PEER} is left out: the package vector_quantize_pytorch is not installed."]


def run(started: Callable[[str], None], builders: Builders, checks: Sequence[Check] = CHECKS) -> Results:
    """Run the checks in order, calling `started` with the title of each. Ctrl-C ends early and keeps the results
    so far.
    """
    results = Results()
    try:
        for check in checks:
            started(check.title)
            with _silence():
                results.done.append(_result(check, builders))
    except KeyboardInterrupt:
        results.interrupted = True
    return results


def _result(check: Check, builders: Builders) -> Result:
    result = Result(check)
    for library, builds in builders.items():
        result.values[library] = {}
        for method, build in builds.items():
            value, failure = attempt(check, build)
            result.values[library][method] = value
            if failure:
                result.failures[f"{library}, {method}"] = failure
    return result


def attempt(check: Check, build: Build) -> tuple[Value | None, str]:
    """Return the check's result in a form that JSON can hold, and the first line of an exception's text."""
    torch.manual_seed(SEED)
    try:
        value = check.run(build())
    except NotApplicableError:
        return None, ""
    except Exception as error:
        return f"error: {type(error).__name__}", first_line(error)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite", ""
    return value, ""


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress warnings, logs, and what C++ writes to the terminal. Here an exception is a result."""
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    level = logging.root.manager.disable
    os.dup2(devnull, 2)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)
