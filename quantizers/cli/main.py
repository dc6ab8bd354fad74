"""The entry point of the command, which needs none of the packages of the extra `cli`."""

import importlib.util
import sys

REQUIRED = ("typer", "rich", "matplotlib", "safetensors")


def run() -> None:
    """Check that the packages of the command are installed, then run the command line."""
    if missing := [name for name in REQUIRED if importlib.util.find_spec(name) is None]:
        print(
            f"Error: the command needs {', '.join(missing)}: pip install 'quantizers-torch[cli]'", file=sys.stderr
        )
        sys.exit(2)
    from quantizers.cli.app import app  # imports typer, so only after the check

    app(prog_name="python -m quantizers" if sys.argv[0].endswith("__main__.py") else "quantizers")
