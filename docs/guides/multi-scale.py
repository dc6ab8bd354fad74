# %% [markdown]
# # Train a multi-scale tokenizer
#
# A multi-scale tokenizer writes an image as grids of tokens, from one token for the whole image to a grid at full
# resolution. Each grid holds what the grids before it left. An autoregressive model then predicts a whole grid at
# a time (*next-scale prediction*, VAR [1]), in as many passes as there are scales, instead of one pass for each
# token.
#
# At the end of this guide you have trained one on handwritten digits, seen its coarsest scale collapse, brought it
# back, and connected what a transformer over scales needs. The tables come from longer trainings on digits and
# photographs, `python -m benchmarks scales` and `python -m benchmarks chain`.

# %%
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import quantizers

torch.manual_seed(0)
digits = torch.tensor(load_digits().images).float()[:, None] / 8 - 1  # [1797, 1, 8, 8]
held_out, training = digits[:297], digits[297:]

# %% [markdown]
# ## The quantizer
#
# `scales` are the sides of the grids, relative to the encoder's map. Here the map has 4 × 4 vectors, so that an
# image becomes 1 + 4 + 16 tokens, the coarsest first.


# %%
class Tokenizer(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 16, 3, padding=1),
        )
        self.quantizer = quantizers.create(
            "var",
            dim=16,
            codebook_size=64,
            scales=(0.25, 0.5, 1.0),
            channel_dim=1,
            **options,
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 1, 3, padding=1),
        )

    def forward(self, images):
        quantized, indices, loss = self.quantizer(self.encoder(images))
        return self.decoder(quantized), indices, loss


model = Tokenizer()
with torch.no_grad():
    reconstruction, indices, loss = model(training[:2])
print("tokens", tuple(indices.shape))
print(
    "scale by scale",
    [tuple(tokens.shape) for tokens in model.quantizer.split(indices, (4, 4))],
)

# %% [markdown]
# At each scale the quantizer averages what is left of the map over the cells of a grid, quantizes the averages,
# interpolates the codes to full size (bicubic), passes them through a convolution φ that scales share, and
# subtracts the result. The value is the sum of all scales, and the loss
#
# $$
# \frac{1}{S} \sum_k \left[
# \beta \, \lVert \mathrm{sg}[\hat f_k] - f \rVert^2 + \lVert \hat f_k - \mathrm{sg}[f] \rVert^2 \right]
# $$
#
# (means over positions and channels) compares the encoder's map $f$ with $\hat f_k$, the sum after scale $k$. So
# each scale is asked to bring the *sum* near to $f$, and $\beta$, ¼, is the commitment of the encoder. This is
# VAR's loss; [`multiscale`](../methods/multiscale.md) instead adds up the losses of the scales' own quantizers, as
# SNAC and Infinity [2] do.
#
# ## Small scales collapse
#
# Train like any autoencoder: add `loss` to the reconstruction loss. Then count the codes, scale by scale. (The use
# of a shared codebook over all scales together looks healthy when the small scales use one code.)


# %%
def train(model, steps=120, replace=False):
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    if replace:
        replacement = quantizers.DeadCodeReplacement(model, optimizer, decay=0.9)
    model.train()
    for _ in range(steps):
        images = training[torch.randint(len(training), (64,))]
        reconstruction, _, loss = model(images)
        (nn.functional.mse_loss(reconstruction, images) + loss).backward()
        optimizer.step()
        optimizer.zero_grad()
        if replace:
            replacement.step()
    return model.eval()


@torch.no_grad()
def codes_used(model):
    """The number of codes that each scale uses on all digits."""
    with quantizers.watch(model) as usage:
        model(digits)
    return (usage.compute()["quantizer"]["utilization"] * 64).round().int().tolist()


torch.manual_seed(0)
shared = train(Tokenizer())
used = {"one shared codebook": codes_used(shared)}
print(used)

# %% [markdown]
# The scale of one token per image has as many vectors in a step as there are images: 64 here, 8 or a few hundred
# elsewhere. A scale of 16 × 16 tokens has 256 times as many. Two things follow.
#
# - **A shared codebook belongs to the large scales.** Averages over whole images differ from what is left at a
#   single position, and they are less than one vector in a hundred. Codes move to where most vectors are.
#   Replacing dead codes does not help: the large scales use all codes, so none of them is dead.
# - **A code of a small scale that is far from all vectors stays there.** The averages over images differ little at
#   first, and a single code soon serves all of them; it follows them while the encoder learns, and the others are
#   never chosen.
#
# ## What keeps them in use
#
# 1. **A codebook for each scale** (`shared=False`), if your prior allows it. A next-scale transformer does: it
#    reads sums of codes in code space, never token numbers.
# 2. **Moving averages** (`quantizer="ema_vq", decay=0.9`): a code of a small scale then moves with every vector
#    that chooses it.
# 3. **Replacement of dead codes** after each step: this is what revives the smallest scale.

# %%
torch.manual_seed(0)
per_scale = train(Tokenizer(quantizer="ema_vq", decay=0.9, shared=False))
used["a codebook for each scale"] = codes_used(per_scale)
torch.manual_seed(0)
model = train(Tokenizer(quantizer="ema_vq", decay=0.9, shared=False), replace=True)
used["the same, dead codes replaced"] = codes_used(model)

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for number, (name, counts) in enumerate(used.items()):
    places = [scale + 0.27 * number for scale in range(3)]
    bars = axes.bar(places, counts, width=0.25, label=name)
    axes.bar_label(bars, fontsize=9)
axes.set(ylabel="codes used, of 64", xlabel="tokens of the scale")
axes.set_xticks([0.27, 1.27, 2.27], ["1 × 1", "2 × 2", "4 × 4"])
figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
axes.spines[["top", "right"]].set_visible(False)
plt.show()
assert used["the same, dead codes replaced"][0] > 2 * used["a codebook for each scale"][0]

# %% [markdown]
# A code is judged by the number of vectors that its scale had. With the defaults, 64 codes, and 64 images in a
# step, a code that is never chosen is replaced after 230 steps; with eight images and 256 codes after 734. Where
# training is short, take fewer codes, larger batches, or a smaller `decay`, as here.
#
# A **warm start** helps an encoder that is trained already: `quantizers.warm_start(model, batches)` runs k-means
# scale by scale, each on what the codes before it leave. Before the first step of a new encoder it does not last,
# as the tables show.
#
# These are the shares of 64 codes that each scale uses, in percent, the lowest and the highest of three seeds:
# digits (600 steps of 64 images) and five scales up to 16 × 16 of photographs (400 steps of 8 crops of 64 × 64
# pixels). Codes are counted on 1,500 images, PSNR is measured on held-out ones.
#
# | digits | 1×1 | 2×2 | 4×4 | PSNR, dB |
# | --- | ---: | ---: | ---: | ---: |
# | shared codebook, learned by the loss (VAR) | 6–11 | 61–69 | 94–100 | 21.3–21.4 |
# | shared codebook, moving averages | 2–3 | 59–75 | 100 | 21.9–22.0 |
# | the same, dead codes replaced | 2–3 | 59–75 | 100 | 21.9–22.0 |
# | a codebook for each scale, moving averages | 2–3 | 100 | 100 | 22.3–22.6 |
# | the same, k-means warm start | 2–5 | 100 | 100 | 22.2–22.7 |
# | **the same, dead codes replaced** | **97–98** | **100** | **100** | 22.4–22.7 |
#
# | photographs | 1×1 | 2×2 | 4×4 | 8×8 | 16×16 | PSNR, dB |
# | --- | ---: | ---: | ---: | ---: | ---: | ---: |
# | shared codebook, learned by the loss (VAR) | 11–17 | 12–19 | 14–22 | 16–23 | 19–25 | 22.7–23.1 |
# | shared codebook, moving averages | 45–56 | 77–81 | 92–94 | 98–100 | 98–100 | 24.0–24.8 |
# | the same, dead codes replaced | 45–56 | 77–81 | 92–94 | 98–100 | 98–100 | 24.0–24.8 |
# | a codebook for each scale, moving averages | 11–23 | 97–100 | 98–100 | 95–100 | 100 | 24.1–24.5 |
# | the same, k-means warm start | 16–27 | 89–98 | 95–100 | 98–100 | 100 | 24.2–24.9 |
# | **the same, dead codes replaced** | **77–81** | **98–100** | **100** | **100** | **100** | 24.1–24.5 |
#
# On the 297 held-out digits, 57 to 63 of the 64 codes of the scale 1 × 1 occur. All numbers:
# [digits](../../benchmarks/results/scales-cpu/digits/scales.md) and
# [photographs](../../benchmarks/results/scales-cpu/photographs/scales.md).
#
# ![Codes that each scale uses, digits](../../benchmarks/results/scales-cpu/digits/scales.png)
# ![Codes that each scale uses, photographs](../../benchmarks/results/scales-cpu/photographs/scales.png)
#
# ## From coarse to fine
#
# Any prefix of the scales decodes, here the first, the first two, and all three.

# %%
images = held_out[:8]
with torch.no_grad():
    indices = model.quantizer.encode(model.encoder(images))
    sizes = [(1, 1), (2, 2), (4, 4)]
    maps = [model.quantizer.decode(indices[:, :end], sizes) for end in (1, 5, 21)]
    rows = [model.decoder(quantized) for quantized in maps]
figure, axes = plt.subplots(4, 8, figsize=(7, 3.8), layout="constrained")
labels = ["1 token", "5 tokens", "21 tokens", "original"]
for line, label, pictures in zip(axes, labels, [*rows, images], strict=True):
    for axis, picture in zip(line, pictures, strict=True):
        axis.imshow(picture[0].numpy(), cmap="gray_r", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(label, fontsize=9)
plt.show()

# %% [markdown]
# `scales` are relative, so maps of any size and aspect ratio work: 1/16 of a map of 16 × 24 is 1 × 2. A scale may
# have a share for each axis, such as `(1, 1/4, 1/4)` for video that reaches its full length before its full
# resolution. A call may bring sizes of its own, those of a published model for instance:
# `quantizer.encode(x, sizes=[(1, 1), (3, 4), (6, 9)])`.
#
# ## A model over scales
#
# A transformer predicts the tokens of scale $k$ from $\hat f_{k-1}$, averaged to the size of scale $k$. In
# training all scales are predicted at once from `scale_inputs`; in sampling `start_scales` gives the same inputs
# one after the other.

# %%
quantizer = model.quantizer
inputs = quantizer.scale_inputs(indices, (4, 4))  # for the second and the third scale
targets = indices[:, 1:]
print("inputs", tuple(inputs.shape), "targets", tuple(targets.shape))

steps = quantizer.start_scales(2, (4, 4))
while steps.left:
    height, width = steps.size
    logits = torch.randn(2, height * width, 64)  # your model, given steps.inputs (at first None)
    steps.append(logits.argmax(-1))
with torch.no_grad():
    sample = model.decoder(quantizer.decode(steps.indices, (4, 4)))
print("sample", tuple(sample.shape))

# %% [markdown]
# [benchmarks/models/next_scale.py](../../benchmarks/models/next_scale.py) is such a transformer: block-causal
# attention, a cache, classifier-free guidance.
#
# A model that samples makes errors that it never saw in training. Infinity flips bits of the codes at random while
# it encodes, and lets the later scales correct them: `quantizer.encode_with_flips(x, 0.3)` returns the flipped
# indices, for `scale_inputs`, and the targets that the model should predict. The quantizers must have bits
# ([`bsq`](../methods/bsq.md), [`lfq`](../methods/lfq.md)). The tokenizer itself can be trained with
# `flip_probability`, and with `dropout` of the last scales, so that any prefix of scales decodes well.
#
# ## How a next-scale prior compares
#
# `python -m benchmarks chain` trains the multi-scale VQ-VAE of this guide and a next-scale transformer on digits
# and on photographs, beside three priors over the codes of an ordinary VQ-VAE. All transformers have the same
# width and depth. "Recognized" is the share of samples that a classifier takes for the digit that was asked for.
#
# | digits | recognized, % | passes | ms an image, of 100 | ms an image, alone |
# | --- | ---: | ---: | ---: | ---: |
# | PixelCNN | 80.1 | 16 | 0.47 | 15.5 |
# | raster transformer | 93.6 | 16 | 0.54 | 19.1 |
# | masked transformer | 97.6 | 8 | 1.26 | 20.7 |
# | next-scale transformer | 92.9 | 3 | 0.37 | 8.4 |
# | the same, guidance 1 | 98.7 | 3 | 0.39 | 9.1 |
#
# On photographs of 64 × 64 pixels the next-scale transformer takes 5 passes and 25 ms alone, the raster
# transformer 256 passes and 320 ms. (AMD EPYC, two cores; bits and details are in [the chain's
# tables](../../benchmarks/results/chain-cpu/chain.md).)
#
# ![Samples of digits from four priors, and an image from its first
# scales](../../benchmarks/results/chain-cpu/digits/priors.png)
#
# ## A tokenizer that exists
#
# `plug_in(model, "var", keep_codebook=True)` replaces the quantizer of a VAR tokenizer and carries over its
# codebook and its convolutions: see [Replace the quantizer of a trained model](existing-models.md).
# `quantizers.create("preset:var", channel_dim=1)` builds the quantizer of VAR, and `"preset:infinity"` that of
# Infinity ([Presets](../presets.md)).
#
# [1] Tian et al.: Visual Autoregressive Modeling, 2024, [2404.02905](https://arxiv.org/abs/2404.02905)
#
# [2] Han et al.: Infinity, 2024, [2412.04431](https://arxiv.org/abs/2412.04431)
