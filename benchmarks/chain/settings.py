"""What decides the result of a training, apart from the data: one record for each kind of model."""

from dataclasses import dataclass

from benchmarks.errors import InputError

DIGITS, PHOTOGRAPHS = "digits", "photographs"
PIXELCNN, TRANSFORMER = "pixelcnn", "transformer"


@dataclass(frozen=True)
class Autoencoding:
    """An autoencoder around a quantizer.

    data         "digits" or "photographs". images: folder of the photographs, None for the bundled ones
    quantizer    as the command line names them, see `benchmarks.variants`
    levels       1: VQ-VAE, 2: VQ-VAE-2
    downsampling pixels a side for each code of the (bottom) level
    """

    data: str
    quantizer: str
    codebook_size: int
    dim: int
    width: int
    downsampling: int
    steps: int
    batch_size: int
    learning_rate: float
    levels: int = 1
    images: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Fitting:
    """A prior for each level of codes. model: "pixelcnn" or "transformer"."""

    model: str
    width: int
    layers: int
    dropout: float
    steps: int
    batch_size: int
    learning_rate: float
    seed: int = 0


AVERAGES = "ema_vq:decay=0.8:gradient=rotation"  # uses most of its codes after a run of few steps

AUTOENCODING = {
    DIGITS: Autoencoding(DIGITS, AVERAGES, 64, 16, 32, 2, 2000, 64, 3e-3),
    PHOTOGRAPHS: Autoencoding(PHOTOGRAPHS, AVERAGES, 256, 32, 32, 4, 1500, 16, 3e-3),
}
FITTING = {
    # Of 1500 digits a prior that is wider, or trained longer, learns by heart: held-out bits rise after 500 steps.
    DIGITS: Fitting(PIXELCNN, 32, 3, 0.5, 400, 64, 2e-3),
    PHOTOGRAPHS: Fitting(PIXELCNN, 64, 4, 0.1, 500, 16, 2e-3),
}


def check_data(name: str) -> str:
    """Raises: InputError for data that there are not."""
    return check_choice("--data", name, tuple(AUTOENCODING))


def check_choice(option: str, given: str, choices: tuple[str, ...]) -> str:
    """Raises: InputError for what is none of the choices."""
    if given not in choices:
        raise InputError(f"{option}: {given!r}, expected {' or '.join(choices)}")
    return given
