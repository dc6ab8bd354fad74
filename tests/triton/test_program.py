"""Straight-line programs do what their calls do, in order, and let go of what they no longer need."""

import gc
import weakref
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quantizers.kernels.common.triton.program import Program


class Box:
    """A value that knows whether it is still alive."""

    def __init__(self, value: int) -> None:
        self.value = value


@given(
    numbers=st.lists(st.integers(-9, 9), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(-9, 9)), max_size=12),
)
def test_a_program_is_the_calls_that_it_is_made_of(numbers: list[int], steps: list[tuple[int, int, int]]) -> None:
    def step(a: int, b: int, *, plus: int) -> int:
        return 2 * a + b + plus

    program, values = Program(len(numbers)), list(numbers)
    names = list(program.parameters)
    for first, second, plus in steps:
        a, b = first % len(names), second % len(names)
        values.append(step(values[a], values[b], plus=plus))
        names += program.call(step, [names[a], names[b]], {"plus": program.constant(plus)})
    function = program.function(f"({', '.join(names)},)")
    assert function(*numbers) == tuple(values)
    assert function(*numbers) == tuple(values)
    assert len(program) == len(steps)


def test_constants_are_the_objects_themselves() -> None:
    program = Program(0)
    constants: list[Any] = [None, True, 1, 1.0, float("nan"), float("-inf"), "a'b", object(), (1, 2)]
    function = program.function(f"[{', '.join(map(program.constant, constants))}]")
    for actual, expected in zip(function(), constants, strict=True):
        assert actual is expected or (type(actual), actual) == (type(expected), expected)


def test_several_results() -> None:
    program = Program(2)
    quotient, rest = program.call(divmod, program.parameters, results=2)
    (one,) = program.call(lambda a: (a,), [rest], results=1)
    assert program.function(f"({quotient}, {rest}, {one})")(17, 5) == (3, 2, 2)


def test_a_result_is_released_after_its_last_use() -> None:
    alive: list[weakref.ref[Box]] = []

    def make() -> Box:
        box = Box(len(alive))
        alive.append(weakref.ref(box))
        return box

    def count(_: Box) -> int:
        gc.collect()
        return sum(each() is not None for each in alive)

    program = Program(0)
    program.call(make, [])  # never used
    (one,) = program.call(make, [])
    (first,) = program.call(count, [one])
    (two,) = program.call(make, [])
    (second,) = program.call(count, [two])
    assert program.function(f"({first}, {second})")() == (1, 1)


def test_pure_calls_whose_results_nobody_uses_are_left_out() -> None:
    seen = []
    program = Program(1)
    (kept,) = program.call(lambda a: seen.append("kept") or a + 1, program.parameters, pure=True)
    (unused,) = program.call(lambda a: seen.append("unused"), [kept], pure=True)
    program.call(lambda a: seen.append("unused, too"), [unused], pure=True)
    program.call(lambda: seen.append("effect"), [])
    assert program.function(kept)(1) == 2
    assert seen == ["kept", "effect"]
