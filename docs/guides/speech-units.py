# %% [markdown]
# # Speech units, and targets for masked prediction
#
# Two ways to turn speech into tokens without a codec. At the end you will have:
#
# - **units**, as HuBERT's k-means makes them [1]: clusters of the features of speech, for language models of
#   speech, for voice conversion, or as targets;
# - **BEST-RQ's targets** [2]: indices of a quantizer that is random and never trained, and a small encoder that
#   learns from predicting them where the speech is hidden.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

import quantizers
from quantizers import metrics

torch.manual_seed(0)
RATE, HOP, WINDOW, BANDS = 8000, 80, 256, 32  # a frame is 10 ms

# %% [markdown]
# ## Speech
#
# We synthesise it, so that we know which sound is heard when: twelve made-up words of four sounds each, spoken by
# voices of random pitch and size of the mouth, with noise in the background.

# %%
PHONES = {  # strength of the voice and of the noise, and three resonances in Hz
    "ee": (1, 0, 270, 2290, 3010),
    "ae": (1, 0, 660, 1720, 2410),
    "ah": (1, 0, 730, 1090, 2440),
    "oo": (1, 0, 300, 870, 2240),
    "m": (0.3, 0, 250, 1200, 2300),
    "s": (0, 0.4, 3300, 3600, 3900),
    "sh": (0, 0.4, 1900, 2500, 3000),
    "-": (0, 0, 500, 1500, 2500),
}
WORDS = torch.randint(len(PHONES) - 1, (12, 4))
LONG = 12  # frames of a sound


def speech(clips, frames=200):
    words = torch.randint(len(WORDS), (clips, frames // LONG // 5 + 1))
    phones = F.pad(WORDS[words], (0, 1), value=len(PHONES) - 1).flatten(1)  # a pause after each word
    shift = torch.randint(LONG, ())
    phones = phones.repeat_interleave(LONG, 1)[:, shift : shift + frames]
    tracks = torch.tensor(list(PHONES.values())).float()[phones].transpose(1, 2)
    tracks = F.avg_pool1d(F.pad(tracks, (3, 3), "replicate"), 7, 1)  # one sound glides into the next
    tracks[:, 2:] *= 0.9 + 0.25 * torch.rand(clips, 1, 1)
    samples = frames * HOP
    pitch = 80 + 120 * torch.rand(clips, 1) + 20 * torch.sin(torch.linspace(0, 12, samples))
    turns = (pitch.double() / RATE).cumsum(-1).floor()
    pulses = 10 * turns.diff(dim=-1, prepend=turns[:, :1]).float()
    voice, noise = spectrum(pulses), spectrum(torch.randn(clips, samples))
    frequency = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    gain = sum(1 / (1 + ((frequency - f[:, None]) / 120).square()) for f in tracks[:, 2:].unbind(1))
    background = 0.02 * spectrum(torch.randn(clips, samples))
    return (voice * tracks[:, :1] + noise * tracks[:, 1:2]) * gain + background, phones


def spectrum(sound):
    return torch.stft(sound, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)[..., :-1]


# %% [markdown]
# The features here are log-mel energies, the front end of most speech models. In practice, take a layer of a
# trained encoder: `HubertModel(...)(sound, output_hidden_states=True).hidden_states[9]` gives `[batch, frames,
# 768]`, and nothing else changes.

# %%
edges = 700 * (10 ** (torch.linspace(0, 2146, BANDS + 2) / 2595) - 1)  # 0 to 4 kHz, equal steps on the mel scale
frequency = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
lower, centre, upper = (edges[i : i + BANDS, None] for i in range(3))
MEL = torch.minimum((frequency - lower) / (centre - lower), (upper - frequency) / (upper - centre)).clamp(0)


def features(count):
    """Log-mel energies [count, frames, BANDS] in decibels, and the sound of each frame [count, frames]."""
    sound, phones = speech(count)
    return 10 * (MEL @ sound.abs().square() + 1e-3).log10().transpose(1, 2), phones


frames, train_phones = features(200)
held_out, held_out_phones = features(50)
mean, deviation = frames.mean((0, 1)), frames.std((0, 1))
frames, held_out = (frames - mean) / deviation, (held_out - mean) / deviation
print(frames.shape)

# %% [markdown]
# ## Units by k-means
#
# `fit` runs k-means on vectors in memory, or in a file larger than it. The quantizer then gives each frame its
# unit.

# %%
vectors = frames.flatten(0, 1)
units = quantizers.create("vq", BANDS, codebook_size=50).eval()
report = quantizers.fit(units, vectors)
print(f"{report.relative_error:.0%} of the variance is left, {report.codebooks[0].used} units in use")


def contingency(labels, phones, size):
    """How often each unit goes with each sound, [units, sounds]."""
    pairs = labels.flatten() * len(PHONES) + phones.flatten()
    return pairs.bincount(minlength=size * len(PHONES)).view(size, len(PHONES)).float()


def purity(labels, phones, size):
    """The share of frames whose sound is the most frequent one of their unit."""
    return 100 * float(contingency(labels, phones, size).amax(1).sum()) / labels.numel()


for size in (8, 50, 200):
    quantizer = quantizers.create("vq", BANDS, codebook_size=size).eval()
    quantizers.fit(quantizer, vectors)
    found = quantizer.encode(held_out)
    bits = metrics.entropy(metrics.code_counts(found, size))
    print(f"{size} units: {purity(found, held_out_phones, size):.0f} % of held-out frames, {bits:.1f} bits each")

# %% [markdown]
# More units are purer, but each sound is spread over more of them. The figure shows which units stand for which
# sound, and where the unit changes in an utterance:

# %%
found = units.encode(held_out)
table = contingency(found, held_out_phones, 50)
table = table / table.sum(1, keepdim=True).clamp(min=1)
order = (table.argmax(1) - 0.5 * table.amax(1)).argsort()
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(1, 1.6), layout="constrained")
left.imshow(table[order].T.numpy(), aspect="auto", cmap="Blues", vmin=0, vmax=1)
left.set(yticks=range(len(PHONES)), yticklabels=list(PHONES), xlabel="unit, in order of its sound", ylabel="sound")
right.imshow(held_out[0, :100].T.numpy(), origin="lower", aspect="auto", cmap="magma")
for frame in (found[0, :100].diff() != 0).nonzero().flatten().tolist():
    right.axvline(frame + 0.5, color="white", linewidth=0.5, alpha=0.7)
right.set(xlabel="frame of 10 ms; lines where the unit changes", ylabel="mel band")
plt.show()

# %% [markdown]
# A unit lasts several frames, so models of units usually merge repetitions:

# %%
merged = [torch.unique_consecutive(row) for row in found]
print(f"{found[0].numel()} frames become {sum(map(len, merged)) / len(merged):.0f} units on average, such as")
print(*merged[0][:20].tolist())

# %% [markdown]
# ### Units that exist already
#
# HuBERT's k-means, or any other, is a table of centres. Give it as `codebook`, and the quantizer has the same
# units, with everything else of this library: the exact search, bytes, saving, export.

# %%
centres = units.codebook.clone()  # or torch.from_numpy(joblib.load("km.bin").cluster_centers_)
given = quantizers.create("vq", BANDS, codebook=centres, frozen=True)
assert torch.equal(given.encode(held_out), found)

# %% [markdown]
# ## Targets without training: BEST-RQ
#
# `random_projection` projects a frame by a random matrix and returns the index of the nearest of random codes.
# Nothing is learned; what matters is that the input is normalized, which `initialize_from` does with the mean and
# deviation of the vectors that it gets. The codes are stored in `state_dict`, so targets survive a restart.
# BEST-RQ quantizes four frames at a time.

# %%
STACK, CODES = 4, 64


def stacked(frames):
    return frames.unflatten(1, (-1, STACK)).flatten(2)


loud = 60 + 20 * stacked(frames)  # as decibels come from a front end
targets = quantizers.create("random_projection", STACK * BANDS, codebook_size=CODES)
for moment in ("before", "after"):
    counts = metrics.code_counts(targets.encode(loud), CODES)
    print(f"{moment} initialize_from: {metrics.utilization(counts):.0%} of the codes in use")
    targets.initialize_from(loud)

# %% [markdown]
# Several targets per frame, as in Google USM [3], come from `parallel` random projections. BEST-RQ's own sizes are
# those of `create("preset:best_rq")`.

# %%
several = quantizers.create("parallel", STACK * BANDS, codebook_size=CODES, num_quantizers=4)
several.initialize_from(stacked(frames))
codes = several.encode(stacked(frames))
print(codes.shape)  # [clips, frames, targets]

# %% [markdown]
# ## Masked prediction
#
# The encoder hears speech with some spans replaced by noise, and predicts the targets of the hidden frames.


# %%
class Encoder(nn.Module):
    def __init__(self, width=64, targets=4):
        super().__init__()
        self.enter = nn.Linear(STACK * BANDS, width)
        self.near = nn.Conv1d(width, width, 5, padding=2, groups=width)  # tells positions apart
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.heads = nn.Linear(width, targets * CODES)

    def features(self, frames):
        x = self.enter(frames)
        return self.layers(x + self.near(x.transpose(1, 2)).transpose(1, 2))

    def forward(self, frames):
        return self.heads(self.features(frames)).unflatten(-1, (-1, CODES))  # [clips, frames, targets, codes]


def hide(frames):
    begins = torch.rand(frames.shape[:2]) < 0.12
    mask = F.max_pool1d(F.pad(begins.float(), (2, 0)), 3, 1) > 0  # spans of three frames, 120 ms
    return torch.where(mask[..., None], 0.1 * torch.randn(frames.shape), frames), mask


@torch.no_grad()
def sounds_found(encoder):
    """The share of hidden frames of held-out speech whose sound a linear map of the features finds."""
    parts = []
    for given, phones in ((frames, train_phones), (held_out, held_out_phones)):
        heard, mask = hide(stacked(given))
        parts.append((encoder.features(heard)[mask], phones[:, STACK // 2 :: STACK][mask]))
    (x, y), (z, expected) = parts
    x, z = (F.pad((part - x.mean(0)) / x.std(0), (0, 1), value=1.0) for part in (x, z))
    weight = torch.linalg.solve(x.T @ x + torch.eye(x.shape[1]), x.T @ F.one_hot(y, len(PHONES)).float())
    return 100 * float(((z @ weight).argmax(1) == expected).float().mean())


torch.manual_seed(0)
encoder = Encoder()
before = sounds_found(encoder)
optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3)
losses = []
for _ in range(STEPS := 300):
    rows = torch.randint(len(frames), (16,))
    heard, mask = hide(stacked(frames[rows]))
    loss = F.cross_entropy(encoder(heard)[mask].flatten(0, 1), codes[rows][mask].flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(f"cross entropy {losses[0]:.2f} at first, {sum(losses[-20:]) / 20:.2f} at the end")
print(f"sounds of hidden frames found: {before:.0f} % without training, {sounds_found(encoder):.0f} % with it")
assert sounds_found(encoder) > before

# %% [markdown]
# ## Which of the two
#
# Random projections need neither training nor a trained encoder, so they suit the first training. HuBERT got
# better targets from the features of an encoder than from spectra, and therefore alternates clustering and
# training. As targets on the same mel frames the two hardly differ: in [our example with three
# seeds](../../benchmarks/results/examples-cpu/masked.json), a linear map found 61.9 ± 1.7 % of the vowels in
# hidden frames after training on k-means, and 58.7 ± 1.7 % after random projection. Compare targets by such a
# probe, never by how many are guessed, because some targets are easier to guess than others.
#
# ## Where to go on
#
# - [Fitting codebooks](../fitting-codebooks.md): the command line, data in files, how much of it, and speed beside
#   faiss and scikit-learn.
# - [`random_projection`](../methods/random_projection.md) and [`parallel`](../methods/parallel.md).
# - [A speech codec](speech-codec.md), if the speech must be heard again.
#
# [1] Hsu et al.: HuBERT, 2021, [2106.07447](https://arxiv.org/abs/2106.07447) ·
# [2] Chiu et al.: BEST-RQ, 2022, [2202.01855](https://arxiv.org/abs/2202.01855) ·
# [3] Zhang et al.: Google USM, 2023, [2303.01037](https://arxiv.org/abs/2303.01037)
