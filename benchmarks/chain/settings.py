"""Settings that determine the result of a training, apart from the data: one class for each kind of model."""

from dataclasses import dataclass

from benchmarks.errors import InputError

DIGITS, PHOTOGRAPHS = "digits", "photographs"
PIXELCNN, TRANSFORMER = "pixelcnn", "transformer"


@dataclass(frozen=True)
class Autoencoding:
    """An autoencoder around a quantizer.

    data         "digits" or "photographs"
    images       folder of the photographs, None for the bundled ones
    quantizer    as on the command line, see `benchmarks.variants`
    levels       1: VQ-VAE, 2: VQ-VAE-2
    downsampling pixels per side of each code of the (bottom) level
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


AVERAGES = "ema_vq:decay=0.8:gradient=rotation"  # uses most of its codes even after few steps

AUTOENCODING = {
    DIGITS: Autoencoding(DIGITS, AVERAGES, 64, 16, 32, 2, 2000, 64, 3e-3),
    PHOTOGRAPHS: Autoencoding(PHOTOGRAPHS, AVERAGES, 256, 32, 32, 4, 1500, 16, 3e-3),
}
FITTING = {
    # A wider prior, or a longer training, memorizes the 1500 digits: held-out bits rise after 500 steps.
    DIGITS: Fitting(PIXELCNN, 32, 3, 0.5, 400, 64, 2e-3),
    PHOTOGRAPHS: Fitting(PIXELCNN, 64, 4, 0.1, 500, 16, 2e-3),
}


def check_data(name: str) -> str:
    """Raises: InputError for an unknown data set."""
    return check_choice("--data", name, tuple(AUTOENCODING))


def check_choice(option: str, given: str, choices: tuple[str, ...]) -> str:
    """Raises: InputError for a value that is not among the choices."""
    if given not in choices:
        raise InputError(f"{option}: got {given!r}; expected {' or '.join(choices)}")
    return given
