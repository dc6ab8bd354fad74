"""`python -m benchmarks`: check that the packages of the extra are installed, then run the command line."""

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


def missing_packages() -> list[str]:
    """Return the distributions of the `bench` extra that this interpreter cannot import."""
    return [REQUIRED[name] for name in REQUIRED if importlib.util.find_spec(name) is None]


def main() -> None:
    if missing := missing_packages():
        sys.exit(
            f"The benchmarks need {', '.join(missing)} from the extra quantizers-torch[bench]: "
            "install it with  pip install -e '.[bench]'"
        )
    from benchmarks.cli.app import app  # imports typer, so only after the check

    app(prog_name="python -m benchmarks")


if __name__ == "__main__":
    main()
