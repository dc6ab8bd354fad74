# %% [markdown]
# # A speech codec with residual quantization
#
# At the end you will have a small neural codec in the manner of SoundStream [1], EnCodec [2] and DAC [3]: one
# model that offers several bitrates, speech in bytes, and a figure of quality against bitrate.
#
# A codec turns a waveform into a few vectors per second and each vector into several codes. The first codebook
# quantizes the vector, the second one what the first has left over, and so on. Fewer codebooks need fewer bits:
#
# $$
# \text{bits per second} = \text{frames per second} \cdot \text{codebooks} \cdot \log_2 K
# $$

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

import quantizers
from quantizers.bitstream import Counts, compress, decompress

torch.manual_seed(0)
RATE = 8000  # samples per second


# %% [markdown]
# ## Sound
#
# Nothing is downloaded here. We synthesise something like speech: pulses of a voice with a moving pitch, shaped by
# three resonances (formants) that glide from vowel to vowel. Replace `speech` by your own recordings, `[clips, 1,
# samples]` in [−1, 1].


# %%
VOWELS = torch.tensor(  # three formants each, in Hz
    [[270, 2290, 3010], [660, 1720, 2410], [730, 1090, 2440], [300, 870, 2240], [490, 1350, 1690.0]]
)
WINDOW, HOP = 256, 64


def speech(clips, seconds=1):
    samples, steps = seconds * RATE, seconds * RATE // HOP + 1
    sounds = torch.randint(len(VOWELS) + 1, (clips, 8 * seconds))  # eight sounds a second; the last one is silence
    loudness = glide((sounds < len(VOWELS)).float()[:, None], steps)
    formants = glide(VOWELS[sounds.clamp(max=len(VOWELS) - 1)].transpose(1, 2), steps)
    pitch = 90 + 130 * torch.rand(clips, 1, 1) + 30 * torch.randn(clips, 1, 4 * seconds)
    turns = (glide(pitch.clamp(70, 280), samples)[:, 0].double() / RATE).cumsum(-1).floor()
    pulses = turns.diff(dim=-1, prepend=turns[:, :1]).float() + 0.01 * torch.randn(clips, samples)
    frequency = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    gain = sum(1 / (1 + ((frequency - f[:, None]) / 90).square()) for f in formants.unbind(1))
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(pulses, WINDOW, HOP, window=window, return_complex=True) * gain * loudness
    sound = torch.istft(spectrum, WINDOW, HOP, window=window, length=samples)
    return 0.8 * (sound / sound.abs().amax(-1, keepdim=True))[:, None]


def glide(values, length):
    return F.interpolate(values, length, mode="linear", align_corners=True)


train, held_out = speech(96), speech(16)

# %% [markdown]
# ## The codec
#
# Encoder and decoder are a strided convolution and its transpose, with a residual block each. A stride of 40
# samples gives 200 vectors per second. The quantizer has four codebooks of 256 codes, so this codec offers 1.6,
# 3.2, 4.8 and 6.4 kbit/s.
#
# - `quantizer="ema_vq"`: codes are moving averages of their vectors, as in SoundStream and EnCodec. The usual
#   `decay=0.99` would follow too slowly for a few hundred steps.
# - `dropout=0.5`: in training, half of the clips use only their first stages, a random number of them, so that the
#   decoder learns every bitrate. `1.0`, for all clips, favours the low bitrates, and `0.0` the highest one.
# - `channel_dim=1`: the vectors stand in `[B, C, T]`.

# %%
STRIDE, STAGES, CODES, DIM, WIDTH = 40, 4, 256, 32, 64


class Residual(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv1d(WIDTH, WIDTH, 3, padding=1), nn.ELU(), nn.Conv1d(WIDTH, WIDTH, 1))

    def forward(self, x):
        return x + super().forward(x)


class Codec(nn.Module):
    def __init__(self, quantizer):
        super().__init__()
        window = {"kernel_size": 2 * STRIDE, "stride": STRIDE, "padding": STRIDE // 2}
        self.encoder = nn.Sequential(nn.Conv1d(1, WIDTH, **window), Residual(), nn.Conv1d(WIDTH, DIM, 1))
        self.quantizer = quantizer
        self.decoder = nn.Sequential(nn.Conv1d(DIM, WIDTH, 1), Residual(), nn.ConvTranspose1d(WIDTH, 1, **window))

    def forward(self, sound):
        quantized, indices, loss = self.quantizer(self.encoder(sound))
        return self.decoder(quantized), indices, loss


quantizer = quantizers.create(
    "residual",
    dim=DIM,
    codebook_size=CODES,
    num_quantizers=STAGES,
    quantizer="ema_vq",
    decay=0.9,
    dropout=0.5,
    channel_dim=1,
)
model = Codec(quantizer)
print(model(train[:2])[1].shape)  # [clips, frames, codebooks]

# %% [markdown]
# ## Training
#
# The loss here is the squared error of the waveform, so that quality can be read as a signal-to-noise ratio.
# Published codecs add distances of spectrograms and discriminators; the quantizer stays as it is.
# `replacement.step()` moves codes that no vector chooses any more to vectors of the batch, as EnCodec does. This
# short training hardly needs it; [many others do](../codebook-in-use.md).

# %%
STEPS, BATCH, CLIP = 350, 4, RATE // 2
power = train.square().mean()
optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
replacement = quantizers.DeadCodeReplacement(model, optimizer)
for _ in range(STEPS):
    start = int(torch.randint(RATE - CLIP, ()))
    clips = train[torch.randint(len(train), (BATCH,)), :, start : start + CLIP]
    decoded, indices, loss = model(clips)
    ((decoded - clips).square().mean() / power + loss).backward()
    optimizer.step()
    optimizer.zero_grad()
    replacement.step()
    schedule.step()
model = model.eval()

# %% [markdown]
# ## Several bitrates from one model
#
# `encode(..., num_codebooks=n)` computes only the first n codebooks, and `decode` takes any number of them.
# Because codes are coarse to fine, a receiver may also drop the last columns of what it was sent: the result is
# the same.


# %%
@torch.no_grad()
def reconstruct(sound, stages):
    indices = quantizer.encode(model.encoder(sound), num_codebooks=stages)
    return indices, model.decoder(quantizer.decode(indices))


def snr(sound, decoded):
    return 10 * math.log10(sound.square().mean() / (sound - decoded).square().mean())


codes, full = reconstruct(held_out, STAGES)
assert torch.equal(reconstruct(held_out, 2)[0], codes[..., :2])  # the first two columns are the smaller code

# %% [markdown]
# ## Bytes
#
# A code costs eight bits if all 256 are equally likely. They are not, so an entropy coder needs less. Both sides
# can count the codes once, on training data; then only the payload is sent.

# %%
train_codes, _ = reconstruct(train, STAGES)
seconds = held_out.shape[0] * held_out.shape[-1] / RATE
kbits, coded, quality = [], [], []
for stages in range(1, STAGES + 1):
    indices, decoded = reconstruct(held_out, stages)
    counts = Counts.of(train_codes[..., :stages], CODES)
    data = compress(indices, CODES, counts)
    assert torch.equal(decompress(data, counts), indices)
    kbits.append(RATE / STRIDE * stages * math.log2(CODES) / 1000)
    coded.append(8 * len(data) / seconds / 1000)
    quality.append(snr(held_out, decoded))
    used = quantizers.metrics.utilization(quantizers.metrics.code_counts(indices[..., -1], CODES))
    print(
        f"codebooks: {stages}, {kbits[-1]:.1f} kbit/s, entropy-coded {coded[-1]:.1f}, SNR {quality[-1]:.1f} dB, "
        f"{used:.0%} of the last codebook in use"
    )

# %%
assert quality == sorted(quality)  # more bits, better sound
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.plot(kbits, quality, "o-", label="indices as they are")
axes.plot(coded, quality, "s--", label="entropy-coded")
axes.set(xlabel="kbit/s", ylabel="SNR (dB), held-out speech", xlim=0)
for x, y, stages in zip(kbits, quality, range(1, STAGES + 1), strict=True):
    axes.annotate(f"{stages}", (x, y), (4, -12), textcoords="offset points")
axes.grid(alpha=0.3)
axes.legend()
plt.show()

# %% [markdown]
# The number beside a point is the number of codebooks. Each codebook adds less than the one before, because it
# quantizes a smaller and more noise-like rest. What that does to the sound:

# %%
figure, panels = plt.subplots(1, 3, figsize=(8, 2.6), sharey=True, layout="constrained")
rows = {"original": held_out, "1 codebook": reconstruct(held_out, 1)[1], f"{STAGES} codebooks": full}
for axes, (title, sound) in zip(panels, rows.items(), strict=True):
    spectrum = torch.stft(sound[0, 0], WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)
    decibels = 20 * spectrum.abs().clamp(1e-2).log10()
    axes.imshow(decibels.numpy(), origin="lower", aspect="auto", extent=(0, 1, 0, 4), vmin=-40)
    axes.set(title=title, xlabel="s")
panels[0].set_ylabel("kHz")
plt.show()

# %% [markdown]
# ## What published codecs use
#
# Their quantizers are there by name: [presets](../presets.md). The bitrate follows from the formula above.

# %%
for name in ("encodec_24khz", "dac_44khz", "mimi"):
    preset = quantizers.presets.get(name)
    stages, size = preset.options["num_quantizers"], preset.options["codebook_size"]
    frames = preset.published.vectors  # per second
    bits = frames * stages * math.log2(size)
    print(f"{name}: {frames:.1f} frames/s, {stages} × {size} codes, {bits / 1000:.1f} kbit/s")

encodec = quantizers.create("preset:encodec_24khz", channel_dim=1)
print(encodec.encode(torch.randn(1, 128, 75), num_codebooks=8).shape)  # a second at 6 kbit/s

# %% [markdown]
# A preset is a starting point, too: `create("preset:dac_44khz", dim=32, num_quantizers=4, codebook_size=256,
# channel_dim=1)` builds DAC's quantizer for the codec above, with projections to eight channels and a search by
# angle.
#
# ## Where to go on
#
# - [Residual quantization](../methods/residual.md): every option, a beam search in `encode`, and `residual_fsq`,
#   which has no codebooks to maintain. [`multiscale`](../methods/multiscale.md) runs its stages at several frame
#   rates, as SNAC does.
# - [Keeping a codebook in use](../codebook-in-use.md) and [monitoring](../monitoring.md) by stage while you train.
# - [Bytes](../bitstream.md): probabilities from a prior need fewer bits than counts.
# - To put these quantizers into a trained EnCodec, DAC or Mimi: [existing models](existing-models.md).
#
# [1] Zeghidour et al.: SoundStream, 2021, [2107.03312](https://arxiv.org/abs/2107.03312) ·
# [2] Défossez et al.: EnCodec, 2022, [2210.13438](https://arxiv.org/abs/2210.13438) ·
# [3] Kumar et al.: DAC, 2023, [2306.06546](https://arxiv.org/abs/2306.06546)
