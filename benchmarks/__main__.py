"""`python -m benchmarks`: check that the packages of the command are installed, then run the command line."""

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass

# import name -> distribution name, as listed under `bench` in pyproject.toml
REQUIRED = {
    "matplotlib": "matplotlib",
    "PIL": "pillow",
    "rich": "rich",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "typer": "typer",
}


@dataclass(frozen=True)
class CommandLine:
    """A module with an `app`, and the packages that it imports.

    required  import name -> distribution name
    extras    those of pyproject.toml that list them
    """

    module: str
    required: dict[str, str]
    extras: str


ALL = CommandLine("benchmarks.cli.app", REQUIRED, "bench")
# Commands that need less, for machines with a GPU and little else, or without torch.
FOR_TESTS = {name: name for name in ("hypothesis", "pytest", "rich", "triton", "typer")}
GPU = CommandLine("benchmarks.cli.gpu", FOR_TESTS, "bench,test")
VERSIONS = CommandLine("benchmarks.cli.versions", {name: name for name in ("rich", "typer")}, "bench")
SMALL = {"gpu": GPU, "gpu-report": GPU, "versions": VERSIONS}


def missing_packages(required: dict[str, str] = REQUIRED) -> list[str]:
    """Return the required distributions that this interpreter cannot import; by default of the `bench` extra."""
    return [required[name] for name in required if importlib.util.find_spec(name) is None]


def main() -> None:
    command = SMALL.get("".join(sys.argv[1:2]), ALL)
    if missing := missing_packages(command.required):
        sys.exit(
            f"The benchmarks need {', '.join(missing)} from the extra quantizers-torch[{command.extras}]: "
            f"install it with  pip install -e '.[{command.extras}]'"
        )
    # Before torch is imported. Its profiler warns of memory that was allocated earlier, which cost.py leaves out.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if command is ALL:
        importlib.import_module("quantizers").warn_unused_codes(False)  # plain VQ is trained here on purpose
    importlib.import_module(command.module).app(prog_name="python -m benchmarks")


if __name__ == "__main__":
    main()
