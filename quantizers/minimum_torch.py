"""The oldest PyTorch that the library runs with. Importing this module raises ImportError with an older one."""

import torch

MINIMUM = (2, 4)


def check(version: str) -> None:
    """Raises: ImportError if the version of PyTorch is too old."""
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < MINIMUM:
        raise ImportError(
            f"quantizers-torch needs torch {MINIMUM[0]}.{MINIMUM[1]} or newer; this is {version}. "
            "Install a newer one with: pip install --upgrade torch"
        )


check(torch.__version__)
