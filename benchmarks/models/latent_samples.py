"""Why a plain autoencoder is not a generative model: images decoded from random latents, compared with a VAE's.

Both models have the same encoder, decoder and training; one latent vector represents an image. The first measure
is the distance of a sample to the nearest training image. A sampler that always returns the same good image would
do well on it, so the second is the distance of a held-out image to the nearest sample. Distances are root mean
squares over the pixels in [−1, 1]. They favour smooth samples: look at the pictures as well.
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
    """Sampled images with their distances.

    images         [N, 1, 8, 8]
    to_data        [N], distance of each sample to the nearest training image
    from_held_out  [N], distance of each held-out image to the nearest sample
    """

    images: Tensor
    to_data: Tensor
    from_held_out: Tensor


def nearest_distance(images: Tensor, among: Tensor) -> Tensor:
    """Return the root mean square distance over the pixels from each of `images` [N, ...] to the nearest of
    `among`: [N].
    """
    distances = torch.cdist(images.flatten(1), among.flatten(1))
    return distances.amin(1) / images[0].numel() ** 0.5


def compare(train: Digits, held_out: Digits, *, steps: int, width: int = 32, seed: int = 0) -> dict[str, Samples]:
    """Train both models on the digits, and sample as many images from each as are held out.

    "data" contains as many training images, as a reference; its `to_data` is measured on the held-out images. The
    autoencoder's latents are sampled from N(0, I) and from the Gaussian of the data's latents, the VAE's from N(0,
    I).
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
