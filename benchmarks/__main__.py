"""`python -m benchmarks`: check that the packages of the command are installed, then run the command line."""

import importlib.util
import sys

# import name -> distribution name, as listed under `bench` in pyproject.toml
REQUIRED = {
    "matplotlib": "matplotlib",
    "PIL": "pillow",
    "rich": "rich",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "typer": "typer",
}
# The commands that need no more than these, for machines with a GPU and little else.
SMALL_COMMANDS = ("gpu", "gpu-report")
SMALL_REQUIRED = {name: name for name in ("hypothesis", "pytest", "rich", "triton", "typer")}


def missing_packages(required: dict[str, str] = REQUIRED) -> list[str]:
    """Return the required distributions that this interpreter cannot import; by default of the `bench` extra."""
    return [required[name] for name in required if importlib.util.find_spec(name) is None]


def main() -> None:
    small = sys.argv[1:2] and sys.argv[1] in SMALL_COMMANDS
    if missing := missing_packages(SMALL_REQUIRED if small else REQUIRED):
        extras = "bench,test" if small else "bench"
        sys.exit(
            f"The benchmarks need {', '.join(missing)} from the extra quantizers-torch[{extras}]: "
            f"install it with  pip install -e '.[{extras}]'"
        )
    if small:
        from benchmarks.cli.gpu import app
    else:
        from benchmarks.cli.app import app  # imports typer, so only after the check
    app(prog_name="python -m benchmarks")


if __name__ == "__main__":
    main()
