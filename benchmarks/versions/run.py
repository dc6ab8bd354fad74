"""All sets, part by part. What fails in one set does not stop the others."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import date
from benchmarks.versions import stored
from benchmarks.versions.environments import EnvironmentFailure, installed, prepare
from benchmarks.versions.parts import PARTS, Part
from benchmarks.versions.sets import SETS, VersionSet
from benchmarks.versions.testing import test

LIMIT_S = 30 * 60.0  # for one part
REPORT = "versions.json"


@dataclass(frozen=True)
class Settings:
    """What to run.

    out           the folder of the report and of pytest's output
    environments  the folder of the virtual environments
    interpreters  the interpreter of a minor release of Python, where python3.x on the PATH is not the one
    fresh         whether to run again what an earlier report has
    """

    out: Path
    environments: Path
    sets: tuple[VersionSet, ...] = SETS
    parts: tuple[Part, ...] = PARTS
    interpreters: dict[str, str] = field(default_factory=dict)
    limit_s: float = LIMIT_S
    fresh: bool = False


class Matrix:
    """Runs the sets. `results` has an entry for each set, with those of an earlier report that still hold."""

    def __init__(
        self, settings: Settings, started: Callable[[str], None], finished: Callable[[dict[str, Any]], None]
    ) -> None:
        """Args: started: called with the name of each set and part before it runs; finished: after each, with the
        entry of its set.
        """
        self.settings, self.started, self.finished = settings, started, finished
        self.results = stored.load(settings.out / REPORT)
        self.interrupted = False
        if settings.fresh:
            names = {part.name for part in settings.parts}
            for target in settings.sets:
                if entry := self.results.get(target.name):
                    entry["parts"] = [part for part in entry["parts"] if part["part"] not in names]

    def run(self) -> None:
        """Run everything; Ctrl-C ends it."""
        try:
            for target in self.settings.sets:
                self._run_set(target)
        except KeyboardInterrupt:
            self.interrupted = True

    def _run_set(self, target: VersionSet) -> None:
        before = self.results.get(target.name, {}).get("parts", [])
        left = [part for part in self.settings.parts if part.name not in {each["part"] for each in before}]
        if not left:
            return
        entry: dict[str, Any] = {
            "name": target.name,
            **asdict(target),
            "installed": {},
            "error": "",
            "parts": before,
        }
        self.results[target.name] = entry
        self.started(f"torch {target.torch}: environment")
        logs = self.settings.out / "logs" / target.name
        try:
            python = prepare(
                target, self.settings.environments, self.settings.interpreters, logs / "environment.log"
            )
        except EnvironmentFailure as failure:
            entry["error"] = str(failure)
            self.finished(entry)
            return
        entry["installed"] = installed(python)
        for part in left:
            self.started(f"torch {target.torch}: {part.name}")
            sources = stored.sources(part)  # before the tests, during which a file may change
            numbers = test(part, python, logs, self.settings.limit_s)
            entry["parts"].append({"part": part.name, "date": date(), "sources": sources, **numbers})
            self.finished(entry)
