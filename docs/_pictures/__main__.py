"""Draw the pictures of the methods named on the command line, or of all registered methods."""

import sys
from pathlib import Path

import quantizers
from docs._pictures.drawing import draw
from docs._pictures.scene import compute

FOLDER = Path(__file__).parents[1] / "methods" / "images"


def main(names: list[str]) -> None:
    """Draw the pictures. Raises: SystemExit for a name that is not registered."""
    unknown = [name for name in names if name not in quantizers.available()]
    if unknown:
        raise SystemExit(f"no quantizer is registered as {', '.join(unknown)}; see quantizers.available()")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or quantizers.available():
        path = FOLDER / f"{name}.png"
        draw(compute(name), path)
        print(f"{path.relative_to(Path.cwd())}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
