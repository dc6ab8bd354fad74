"""Straight-line programs: calls of functions with the results of earlier ones, compiled from Python's source.

    program = Program(2)
    total = program.call(torch.add, program.parameters)
    function = program.function(total[0])
    function(a, b)  # a + b

`torch.fx` makes such functions, too. But its first graph imports PyTorch's compiler, which takes a second or more.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

NOTHING: Mapping[str, str] = MappingProxyType({})
_VALUE = re.compile(r"\bvalue_\d+\b")


class _Statement(NamedTuple):
    results: list[str]
    text: str
    pure: bool  # it has no effect but its results


class Program:
    """A function of some parameters, under construction. Calls take and return the source of expressions."""

    def __init__(self, parameters: int) -> None:
        self.parameters = [f"parameter_{place}" for place in range(parameters)]
        self._statements: list[_Statement] = []
        self._constants: dict[str, Any] = {}
        self._results = 0

    def __len__(self) -> int:
        """The number of calls."""
        return len(self._statements)

    def constant(self, value: Any) -> str:
        """Return an expression for a value that is the same in each run."""
        if value is None or type(value) in (int, bool):
            return repr(value)
        name = f"constant_{len(self._constants)}"
        self._constants[name] = value
        return name

    def call(
        self,
        function: Callable[..., Any],
        arguments: Sequence[str],
        options: Mapping[str, str] = NOTHING,
        *,
        results: int | None = None,
        pure: bool = False,
    ) -> list[str]:
        """Add a call, and return expressions for its results.

        Args:
            arguments, options: expressions of what is passed by position and by name.
            results: the length of the tuple that the function returns; None if it returns one value.
            pure: whether the call may be left out if nothing uses its results.
        """
        count = 1 if results is None else results
        names = [f"value_{self._results + place}" for place in range(count)]
        self._results += count
        given = ", ".join([*arguments, *(f"{name}={value}" for name, value in options.items())])
        targets = ", ".join(names) + ("" if results is None else ",")
        text = f"{targets} = {self.constant(function)}({given})"
        self._statements.append(_Statement(names, text, pure))
        return names

    def function(self, result: str) -> Callable[..., Any]:
        """Return the function of the parameters whose value is an expression. It holds no result that it no longer
        needs."""
        used = set(_VALUE.findall(result))
        lines = [f"return {result}"]
        for statement in reversed(self._statements):
            if statement.pure and used.isdisjoint(statement.results):
                continue
            last_used = sorted(set(_VALUE.findall(statement.text)) - used)
            if last_used:
                lines.append(f"del {', '.join(last_used)}")
            lines.append(statement.text)
            used.update(last_used)
        body = "".join(f"    {line}\n" for line in reversed(lines))
        scope = dict(self._constants)
        exec(f"def function({', '.join(self.parameters)}):\n{body}", scope)
        function: Callable[..., Any] = scope["function"]
        return function
