"""Photographs to train and to evaluate on; whole photographs are held out, never parts of one.

`bundled` are those that the scikit-image and scikit-learn wheels carry, so nothing is downloaded;
`from_folder` are the user's own.
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
LONGEST_SIDE = 1024  # larger pictures of the user's are reduced, so that a folder of them fits in memory
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
    """One picture: its name, its file's size in bytes, and uint8 pixels [3, H, W]."""

    name: str
    file_bytes: int
    pixels: torch.Tensor


@dataclass(frozen=True)
class Photographs:
    """A data set: where it came from, its two disjoint halves, and a sentence for each file left out."""

    source: str
    train: tuple[Photograph, ...]
    held_out: tuple[Photograph, ...]
    skipped: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Names and file sizes, for the report and for the fingerprint of a result."""
        return {
            "source": self.source,
            "train": [{"name": p.name, "file_bytes": p.file_bytes} for p in self.train],
            "held_out": [{"name": p.name, "file_bytes": p.file_bytes} for p in self.held_out],
            "skipped": list(self.skipped),
        }


def bundled() -> Photographs:
    """The photographs in the installed scikit-image and scikit-learn, read by path.

    Not through skimage.data: its functions may download.
    """
    train, missing_train = _read_all(_installed(BUNDLED_TRAIN), base=None)
    held_out, missing_held_out = _read_all(_installed(BUNDLED_HELD_OUT), base=None)
    skipped = (*missing_train, *missing_held_out)
    if not train or not held_out:
        raise InputError(f"the photographs of scikit-image and scikit-learn cannot be read: {'; '.join(skipped)}")
    return Photographs("scikit-image and scikit-learn", train, held_out, skipped)


def from_folder(folder: Path) -> Photographs:
    """Every picture under `folder` that Pillow reads; each fifth in the order of names is held out.

    Raises InputError where `folder` is not a folder or holds fewer than two usable pictures.
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
            "at least two are needed, one of them to be held out"
        )
    held_out = pictures[::HELD_OUT_EVERY]
    train = tuple(p for i, p in enumerate(pictures) if i % HELD_OUT_EVERY)
    return Photographs(str(folder), train, held_out, skipped)


def read_pixels(path: Path) -> torch.Tensor:
    """uint8 [3, H, W]: upright as its camera says, first frame, transparency dropped, grey as three channels."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        rgb = np.array(_eight_bits(image).convert("RGB"))
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow's own conversion clips 16-bit greys to 255 instead of scaling them."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.array(image).clip(0, 65535) / 257).round().astype(np.uint8))


def _installed(names: dict[str, list[str]]) -> list[Path]:
    """Paths inside the installed packages, found without importing them."""
    paths = []
    for folder, files in names.items():
        package, _, inside = folder.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"the package {package}, whose photographs are used, is not installed")
        paths += [Path(spec.submodule_search_locations[0], inside, name) for name in files]
    return paths


def _read_all(paths: Iterable[Path], base: Path | None) -> tuple[tuple[Photograph, ...], tuple[str, ...]]:
    """What can be used, and one sentence for each file that cannot; names are relative to `base`."""
    pictures: list[Photograph] = []
    skipped: list[str] = []
    for path in paths:
        name = path.name if base is None else path.relative_to(base).as_posix()
        try:
            pixels = read_pixels(path)
        except Exception as error:  # Pillow's format readers raise whatever the damage leads to
            skipped.append(f"{name}: cannot be read ({_reason(error)})")
            continue
        if min(pixels.shape[1:]) < TILE:
            skipped.append(f"{name}: {_size(pixels.shape)} is smaller than {TILE}×{TILE} pixels")
            continue
        pictures.append(Photograph(name, path.stat().st_size, pixels))
    return tuple(pictures), tuple(skipped)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture that Pillow knows"
    return str(error) or type(error).__name__


def _size(shape: Sequence[int]) -> str:
    return f"{shape[2]}×{shape[1]}"
