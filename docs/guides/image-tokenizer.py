# %% [markdown]
# # Train an image tokenizer
#
# At the end of this guide you have a small VQ autoencoder, trained on photographs, that turns an image of 32 × 32
# pixels into 8 × 8 tokens and back. You will have measured how many of its codes it uses on photographs that it
# never saw, kept the codebook alive, and exchanged the quantizer by changing one line. Everything runs on one CPU
# core in less than half a minute.

# %%
import matplotlib.pyplot as plt
import torch
from skimage import data
from sklearn.datasets import load_sample_images
from torch import nn

import quantizers

# %% [markdown]
# ## Photographs
#
# scikit-image and scikit-learn bring a few. The cat and the flower are held out: whole photographs, not regions of
# the ones we train on, because neighbouring crops look alike.

# %%
building, flower = load_sample_images().images
training = [data.astronaut(), data.coffee(), data.rocket(), building]
held_out = [data.chelsea(), flower]


def to_tensor(photograph):
    """uint8 [H, W, 3] → float32 [3, H, W] in [−1, 1]."""
    return torch.tensor(photograph).permute(2, 0, 1) / 127.5 - 1


def random_crops(photographs, count, side=32):
    """Crops at random places: [count, 3, side, side]."""
    crops = []
    for _ in range(count):
        photograph = photographs[torch.randint(len(photographs), ()).item()]
        top = torch.randint(photograph.shape[1] - side + 1, ()).item()
        left = torch.randint(photograph.shape[2] - side + 1, ()).item()
        crops.append(photograph[:, top : top + side, left : left + side])
    return torch.stack(crops)


def tiles(photograph, side=32):
    """The photograph cut into squares: [count, 3, side, side]."""
    squares = photograph.unfold(1, side, side).unfold(2, side, side)
    return squares.flatten(1, 2).transpose(0, 1)


train_images = [to_tensor(photograph) for photograph in training]
test_images = torch.cat([tiles(to_tensor(photograph)) for photograph in held_out])
print(f"{len(test_images)} held-out tiles")

# %% [markdown]
# ## The model
#
# The quantizer stands between an encoder and a decoder. `channel_dim=1` says where the channels are in
# `[B, C, H, W]`. Every quantizer of the library returns the same three things: the quantized vectors, the indices
# (the tokens), and a loss to add to your own.


# %%
class Tokenizer(nn.Module):
    def __init__(self, quantizer, dim=32):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 24, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(24, 48, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(48, dim, 3, padding=1),
        )
        self.quantizer = quantizer
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, 48, 3, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(48, 24, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(24, 3, 4, stride=2, padding=1),
        )

    def forward(self, images):
        quantized, indices, loss = self.quantizer(self.encoder(images))
        return self.decoder(quantized), indices, loss

    def encode(self, images):
        return self.quantizer.encode(self.encoder(images))

    def decode(self, indices):
        return self.decoder(self.quantizer.decode(indices))


def build(name):
    torch.manual_seed(0)
    model = Tokenizer(nn.Identity())  # first, so that encoder and decoder start the same each time
    model.quantizer = quantizers.create(name, dim=32, codebook_size=512, channel_dim=1)
    return model


# %% [markdown]
# ## Training, and what to measure
#
# The training loop is the usual one. `DeadCodeReplacement` is explained below. Afterwards, `quantizers.watch`
# counts the codes that the model chooses on the held-out tiles. Count there and not in training: codes that serve
# training images alone, or that random samples choose, would look alive.


# %%
def train(model, steps=160, replace=False):
    torch.manual_seed(1)  # the same crops each time
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    if replace:
        replacement = quantizers.DeadCodeReplacement(model, optimizer, decay=0.95)
    model.train()
    for _ in range(steps):
        images = random_crops(train_images, 16)
        reconstruction, _, loss = model(images)
        (nn.functional.mse_loss(reconstruction, images) + loss).backward()
        optimizer.step()
        optimizer.zero_grad()
        if replace:
            replacement.step()
    return model.eval()


@torch.no_grad()
def measure(model):
    with quantizers.watch(model) as usage:
        reconstruction = model(test_images)[0].clamp(-1, 1)
    mse = nn.functional.mse_loss(reconstruction, test_images) / 4  # pixels in [0, 1]
    return usage.scalars()["quantizer/utilization"], -10 * mse.log10().item()


models = {"vq": train(build("vq"))}
used_by_plain_vq, psnr = measure(models["vq"])
print(f"vq: {used_by_plain_vq:.1%} of the codes used on held-out tiles, PSNR {psnr:.1f} dB")

# %% [markdown]
# A few percent: the *codebook collapse* that most people meet first. At the start all vectors of the encoder lie
# close together, a few codes are nearest to all of them, and only codes that are chosen learn.
#
# ## Keep the codebook in use
#
# `DeadCodeReplacement` watches which codes are chosen, and moves those that are not to vectors of the current
# batch, together with their optimizer state. With its defaults a code that is never chosen moves after 230 steps.
# This training is short, so that we let it forget faster: with `decay=0.95` after 45. That is one line before the
# loop and one inside. [Keeping a codebook in use](../codebook-in-use.md) lists what else helps.

# %%
models["vq, dead codes replaced"] = train(build("vq"), replace=True)
used, psnr = measure(models["vq, dead codes replaced"])
print(f"vq, dead codes replaced: {used:.1%} of the codes, PSNR {psnr:.1f} dB")
assert used > used_by_plain_vq

# %% [markdown]
# ## Another quantizer
#
# Change the name. [FSQ](../methods/fsq.md) rounds a few channels to a grid, so that there is no codebook to
# collapse; the layers from 32 channels to the grid's and back are its own. Its grid has 512 codes, 8 × 8 × 8.

# %%
models["fsq"] = train(build("fsq"))
used, psnr = measure(models["fsq"])
print(f"fsq: {used:.1%} of the codes, PSNR {psnr:.1f} dB")

# %% [markdown]
# ## Reconstructions
#
# The network is fully convolutional, so that it takes larger images than it was trained on.

# %%
views = torch.stack([to_tensor(photograph)[:, 80:176, 150:246] for photograph in held_out])
with torch.no_grad():
    rows = {"original": views} | {name: model(views)[0] for name, model in models.items()}
figure, axes = plt.subplots(2, len(rows), figsize=(8, 4.3), layout="constrained")
for column, (name, images) in zip(axes.T, rows.items(), strict=True):
    column[0].set_title(name.replace(", ", ",\n"), fontsize=10)
    for axis, image in zip(column, images, strict=True):
        pixels = image.clamp(-1, 1).permute(1, 2, 0) / 2 + 0.5
        axis.imshow(pixels.numpy(), interpolation="nearest")
        axis.axis("off")
plt.show()

# %% [markdown]
# ## Tokens for a transformer
#
# `encode` gives the tokens, and `decode` turns tokens, your transformer's for instance, into an image. Decoding
# the tokens gives exactly what the forward gave.

# %%
model = models["vq, dead codes replaced"]
with torch.no_grad():
    tokens = model.encode(test_images[:4])
    assert torch.equal(model.decode(tokens), model(test_images[:4])[0])
print(tokens.shape, tokens.dtype)
print("row 0:", *tokens[0, 0].tolist())

# %% [markdown]
# Which quantizer should write them? In [our benchmark](../results/utilization.md), 1,000 steps of a similar
# autoencoder with about 1,000 codes and three seeds:
#
# | quantizer | codes used | PSNR | for a transformer |
# |---|---|---|---|
# | `vq` | 2 to 3 % | 22.0 to 22.6 dB | not without help |
# | `vq` with `DeadCodeReplacement` | 54 to 62 % | 23.9 to 24.0 dB | one token per position: the usual choice |
# | `fsq` | 31 to 46 % | 23.5 to 23.6 dB | the same, and nothing to maintain |
# | `residual`, 4 × 1,024 codes | 2 to 3 % | 24.7 to 26.2 dB | four tokens per position: longer sequences |
#
# - **Codebook size.** More codes than your data uses make the softmax of the transformer larger and the images no
#   better. Watch the perplexity on held-out images while you train ([Monitoring](../monitoring.md)).
# - **Size of the latent map.** Twice the side means four times the tokens. Published tokenizers use 16 × 16 pixels
#   per token, some 8 × 8: [Presets](../presets.md) lists them, and
#   `quantizers.create("preset:llamagen", channel_dim=1)` builds one.
# - **More than 65,536 codes.** See [Binary codes](binary-codes.md).
# - **From coarse to fine.** See [Training a multi-scale tokenizer](multi-scale.md).
#
# If something goes wrong, [Troubleshooting](../troubleshooting.md) starts from the symptom, and
# [`quantizers.diagnose`](../diagnose.md) measures your model.
