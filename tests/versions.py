"""Marks of tests that an old version of PyTorch or Python cannot pass."""

import sys

import pytest
import torch

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


def needs_torch(major: int, minor: int, what: str) -> pytest.MarkDecorator:
    """Skip a test before a version of PyTorch; `what` names what the older versions cannot do."""
    return pytest.mark.skipif((major, minor) > TORCH, reason=f"torch {major}.{minor} is the first with {what}")


def text_of(error: BaseException) -> str:
    """Return the message of an error with its notes, which Python 3.10 does not have."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def needs_python(major: int, minor: int, micro: int, what: str) -> pytest.MarkDecorator:
    """Skip a test before a version of Python; `what` names what the older versions cannot do."""
    version = (major, minor, micro)
    return pytest.mark.skipif(
        sys.version_info < version, reason=f"Python {major}.{minor}.{micro} is the first with {what}"
    )


with_free_numbers = needs_torch(2, 6, "graphs that are valid for any value of a Python number")
