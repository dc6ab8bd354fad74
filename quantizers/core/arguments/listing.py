"""A readable list of the options of a quantizer."""

import inspect
from collections.abc import Iterator, Mapping


class Required:
    """Stands for the default of an option that has none."""

    def __repr__(self) -> str:
        return "required"


REQUIRED = Required()


class Options(Mapping[str, object]):
    """The options of a quantizer with their defaults; its repr lists one option per line.

    Attributes: name: the quantizer's. others: where options that are not listed go, in words; empty if every
        option is listed.
    """

    def __init__(self, name: str, defaults: Mapping[str, object], others: str) -> None:
        self.name = name
        self.others = others
        empty = inspect.Parameter.empty
        self._defaults = {key: REQUIRED if value is empty else value for key, value in defaults.items()}

    def __getitem__(self, option: str) -> object:
        return self._defaults[option]

    def __iter__(self) -> Iterator[str]:
        return iter(self._defaults)

    def __len__(self) -> int:
        return len(self._defaults)

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        lines = [f"options of {self.name!r}:", *(f"  {key:{width}}  {value!r}" for key, value in self.items())]
        if self.others:
            lines.append(f"Other options go to {self.others}.")
        return "\n".join(lines)
