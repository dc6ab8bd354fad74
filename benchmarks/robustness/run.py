"""The command's work: every check on every subject, each freshly built."""

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
    """What became of each method in one check, by library: None where it has nothing of the kind.

    failures: the exceptions' first lines, by library and method.
    """

    check: Check
    values: dict[str, dict[str, Value | None]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass
class Results:
    """Everything, in the order in which it was done."""

    done: list[Result] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    interrupted: bool = False


def installed() -> tuple[Builders, list[str]]:
    """The subjects that can be built here, and a sentence on the library that is missing."""
    if importlib.util.find_spec("vector_quantize_pytorch") is not None:
        return BUILDERS, []
    return {OURS: BUILDERS[OURS]}, [f"{PEER} is left out: the package vector_quantize_pytorch is not installed."]


def run(started: Callable[[str], None], builders: Builders, checks: Sequence[Check] = CHECKS) -> Results:
    """Do the checks in order; `started` is told the title of each. Ctrl-C ends early, and keeps what is there."""
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
    """The check's answer in a form that JSON holds, and the first line of an exception's text."""
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
    """Without warnings, logs, and what C++ writes to the terminal: here an exception is an answer."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    level = logging.root.manager.disable
    os.dup2(nowhere, 2)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
