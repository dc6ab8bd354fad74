"""These tests run where the emulated device is registered: see ../test_without_float64.py."""

import sys

import pytest

from quantizers.kernels.common import modes

if "tests.devices.emulated" not in sys.modules:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def _tensors_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library take the tensors of the stand-in as those of a device, not as those of a subclass."""
    from tests.devices.emulated import EmulatedTensor

    monkeypatch.setattr(modes, "_PLAIN", (*modes._PLAIN, EmulatedTensor))
