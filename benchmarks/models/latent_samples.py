"""Why an autoencoder is no generative model: what its latents decode to when they are drawn, beside a VAE's.

Both have the same encoder and decoder and the same training; one latent vector stands for the image. The measure
is the distance of a sample to the nearest image of the training data, and, since a sample that is always the same
good image would do well there, that of a held-out image to the nearest sample. Distances are root mean squares
over the pixels, in [−1, 1]. They favour samples that are smooth: look at the pictures too.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.digits import SIDE, Digits, training_batches
from benchmarks.models.autoencoder import Autoencoder
from benchmarks.models.fitting import fit
from benchmarks.models.vae import VAE

DIM = 16
NOISE = 0.4
BATCH_SIZE = 32
LEARNING_RATE = 1e-2


class Samples(NamedTuple):
    """images: [N, 1, 8, 8]. to_data: of each to the nearest training image, [N]. from_held_out: of each held-out
    image to the nearest of these, [N]."""

    images: Tensor
    to_data: Tensor
    from_held_out: Tensor


def nearest_distance(images: Tensor, among: Tensor) -> Tensor:
    """Root mean square over the pixels between each of `images` [N, ...] and the nearest of `among`: [N]."""
    distances = torch.cdist(images.flatten(1), among.flatten(1))
    return distances.amin(1) / images[0].numel() ** 0.5


def compare(train: Digits, held_out: Digits, *, steps: int, width: int = 32, seed: int = 0) -> dict[str, Samples]:
    """Train both models on the digits and draw from each as many images as are held out.

    "data" are as many training images, the yardstick: their `to_data` is that of the held-out images. The
    autoencoder's latents are drawn from N(0, I) and from the Gaussian of the data's, the VAE's from N(0, I).
    """
    count = len(held_out.images)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    sizes = {"dim": DIM, "width": width, "downsampling": SIDE}
    autoencoder, vae = Autoencoder(1, **sizes), VAE(1, **sizes, noise=NOISE)
    for model in (autoencoder, vae):
        batches = training_batches(train.images, BATCH_SIZE, seed)
        fit(model, batches, steps=steps, learning_rate=LEARNING_RATE)
    with torch.no_grad():
        drawn = {
            "autoencoder, N(0, I)": autoencoder.decode(torch.randn(count, DIM, 1, 1, generator=generator)),
            "autoencoder, Gaussian": autoencoder.sample(count, train.images, generator),
            "VAE": vae.sample(count, (1, 1), generator),
        }
    some = train.images[:count]
    result = {
        "data": Samples(
            some, nearest_distance(held_out.images, train.images), nearest_distance(held_out.images, some)
        )
    }
    for name, images in drawn.items():
        shown = images.clamp(-1, 1)
        to_data, from_held_out = nearest_distance(shown, train.images), nearest_distance(held_out.images, shown)
        result[name] = Samples(shown, to_data, from_held_out)
    return result
