"""Photographs for training and evaluation. Whole photographs are held out, never regions of one.

`bundled` returns the photographs in the scikit-image and scikit-learn wheels, so nothing is downloaded;
`from_folder` reads the user's own.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from benchmarks.errors import InputError

TILE = 32  # pixels: the side of every training crop and of every held-out tile
LONGEST_SIDE = 1024  # larger user pictures are downscaled, so that a folder of them fits in memory
HELD_OUT_EVERY = 5

# china.jpg is the only photograph of a building, so it stays in training.
BUNDLED_TRAIN = {
    "skimage/data": [
        "astronaut.png",
        "brick.png",
        "camera.png",
        "coffee.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "motorcycle_left.png",
        "rocket.jpg",
    ],
    "sklearn/datasets/images": ["china.jpg"],
}
BUNDLED_HELD_OUT = {"skimage/data": ["chelsea.png"], "sklearn/datasets/images": ["flower.jpg"]}


@dataclass(frozen=True)
class Photograph:
    """One picture: its name, its file size in bytes, and uint8 pixels [3, H, W]."""

    name: str
    file_bytes: int
    pixels: torch.Tensor


@dataclass(frozen=True)
class Photographs:
    """A data set: its source, its disjoint training and held-out photographs, and a sentence for each skipped
    file.
    """

    source: str
    train: tuple[Photograph, ...]
    held_out: tuple[Photograph, ...]
    skipped: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return names and file sizes, for the report and for the fingerprint of a result."""
        return {
            "source": self.source,
            "train": [{"name": p.name, "file_bytes": p.file_bytes} for p in self.train],
            "held_out": [{"name": p.name, "file_bytes": p.file_bytes} for p in self.held_out],
            "skipped": list(self.skipped),
        }


def bundled() -> Photographs:
    """Read the photographs in the installed scikit-image and scikit-learn by path.

    This avoids skimage.data, whose functions may download files.
    """
    train, missing_train = _read_all(_installed(BUNDLED_TRAIN), base=None)
    held_out, missing_held_out = _read_all(_installed(BUNDLED_HELD_OUT), base=None)
    skipped = (*missing_train, *missing_held_out)
    if not train or not held_out:
        raise InputError(f"cannot read the photographs of scikit-image and scikit-learn: {'; '.join(skipped)}")
    return Photographs("scikit-image and scikit-learn", train, held_out, skipped)


def from_folder(folder: Path) -> Photographs:
    """Read every picture under `folder` that Pillow can open. In order of names, every fifth is held out.

    Raises: InputError if `folder` is not a folder or contains fewer than two usable pictures.
    """
    if not folder.is_dir():
        raise InputError(f"--images: {folder} is not a folder")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise InputError(f"--images: the folder {folder} is empty")
    pictures, skipped = _read_all(paths, base=folder)
    if not pictures:
        reasons = "; ".join(skipped[:3])
        raise InputError(f"--images: no usable picture among {len(paths)} files in {folder} ({reasons})")
    if len(pictures) == 1:
        raise InputError(
            f"--images: only one usable picture in {folder} ({pictures[0].name}); "
            "expected at least two, one of them to be held out"
        )
    held_out = pictures[::HELD_OUT_EVERY]
    train = tuple(p for i, p in enumerate(pictures) if i % HELD_OUT_EVERY)
    return Photographs(str(folder), train, held_out, skipped)


def read_pixels(path: Path) -> torch.Tensor:
    """Return uint8 [3, H, W]: EXIF orientation applied, first frame, transparency dropped, grey as three
    channels."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        rgb = np.array(_eight_bits(image).convert("RGB"))
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit greys by scaling. Pillow's own conversion clips them to 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.array(image).clip(0, 65535) / 257).round().astype(np.uint8))


def _installed(names: dict[str, list[str]]) -> list[Path]:
    """Return paths inside the installed packages without importing them."""
    paths = []
    for folder, files in names.items():
        package, _, inside = folder.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"the package {package}, which contains the photographs, is not installed")
        paths += [Path(spec.submodule_search_locations[0], inside, name) for name in files]
    return paths


def _read_all(paths: Iterable[Path], base: Path | None) -> tuple[tuple[Photograph, ...], tuple[str, ...]]:
    """Return the usable pictures and a sentence for each other file. Names are relative to `base`."""
    pictures: list[Photograph] = []
    skipped: list[str] = []
    for path in paths:
        name = path.name if base is None else path.relative_to(base).as_posix()
        try:
            pixels = read_pixels(path)
        except Exception as error:  # Pillow's format readers raise many kinds of errors on damaged files
            skipped.append(f"{name}: cannot be read ({_reason(error)})")
            continue
        if min(pixels.shape[1:]) < TILE:
            skipped.append(f"{name}: {_size(pixels.shape)} is smaller than {TILE}×{TILE} pixels")
            continue
        pictures.append(Photograph(name, path.stat().st_size, pixels))
    return tuple(pictures), tuple(skipped)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture format that Pillow supports"
    return str(error) or type(error).__name__


def _size(shape: Sequence[int]) -> str:
    return f"{shape[2]}×{shape[1]}"
