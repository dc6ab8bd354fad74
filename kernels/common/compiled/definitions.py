"""The constants of kernels/common/constants.py as macros of the C++ compiler."""

from quantizers.kernels.common import constants

Value = int | float | tuple[int, ...]


def definitions() -> list[str]:
    """Return an argument of the compiler for each constant: QUANTIZERS_ and its name as a macro with its value."""
    values = {name: value for name, value in vars(constants).items() if name.isupper()}
    return [f"-DQUANTIZERS_{name}={_literal(value)}" for name, value in values.items()]


def _literal(value: Value) -> str:
    """Return a literal of C++17 with exactly this value: hexadecimal for float, a list in braces for a tuple."""
    if isinstance(value, tuple):
        return "{" + ",".join(map(_literal, value)) + "}"
    return value.hex() if isinstance(value, float) else str(value)
