"""Which cases `make test` leaves to `make fuzz`."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cases import CASES, Case
from tests.conftest import FEW, leave_by_share

SHARE = 4


class Item:
    """What the rule asks of a test."""

    def __init__(self, function: str, case: Case | str) -> None:
        self.nodeid, self.case = f"{function}[{case}]", case
        self.callspec = SimpleNamespace(params={"case": case})
        self.is_left = False

    def get_closest_marker(self, name: str) -> None:
        assert name == "slow"

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        assert mark.name == "long"
        self.is_left = True


def run(function: str, cases: list[Any]) -> list[Any]:
    """The cases of a function that are not left."""
    items = [Item(function, case) for case in cases]
    leave_by_share(items, SHARE)  # type: ignore[arg-type]
    return [item.case for item in items if not item.is_left]


def test_plain_foundations_always_run_and_of_the_others_a_share() -> None:
    foundations = [case for case in CASES if case.foundation and not case.is_variation]
    kept = run("law", CASES)
    assert set(map(str, foundations)) < set(map(str, kept))
    assert len(kept) == len(foundations) + -(-(len(CASES) - len(foundations)) // SHARE)


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 4 * FEW, 100])
def test_a_few_cases_of_each_law_run(count: int) -> None:
    assert len(run("law", list(map(str, range(count))))) == max(min(count, FEW), -(-count // SHARE))


def test_the_choice_does_not_depend_on_the_order() -> None:
    shuffled = random.Random(0).sample(CASES, len(CASES))
    assert set(map(str, run("law", shuffled))) == set(map(str, run("law", CASES)))


def test_each_case_runs_in_some_laws() -> None:
    """In 60 laws, a case is left by all with a probability of 0.75⁶⁰ < 10⁻⁷."""
    kept = {str(case) for law in range(60) for case in run(f"law {law}", CASES)}
    assert kept == set(map(str, CASES))
