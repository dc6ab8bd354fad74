# %% [markdown]
# # Binary codes beyond 65,536 values
#
# A codebook of 2³² codes cannot be a table. [LFQ](../methods/lfq.md) and [BSQ](../methods/bsq.md) have none: each
# channel of the encoder becomes one bit, its sign, so that 32 channels are a codebook of 2³² codes, and the cost
# grows with the bits, not with the codes. MAGVIT-v2 (2¹⁸ codes), Open-MAGVIT2 and Infinity (2³²) work this way.
#
# At the end of this guide you have trained an autoencoder with 32-bit codes on patches of photographs, measured
# whether its bits are used, seen what the entropy loss must be told so that bits do not copy each other, and
# predicted such codes with factorized heads, as a transformer does.

# %%
import math

import matplotlib.pyplot as plt
import torch
from skimage import data
from torch import nn

import quantizers
from quantizers import metrics

BITS, SIDE, WIDTH = 32, 8, 128
torch.manual_seed(0)


def patches(photograph):
    """uint8 [H, W, 3] → float32 [rows, columns, 192] in [−1, 1]: patches of 8 × 8 pixels."""
    pixels = torch.tensor(photograph) / 127.5 - 1
    return pixels.unfold(0, SIDE, SIDE).unfold(1, SIDE, SIDE).flatten(2)


training = [patches(pixels) for pixels in (data.astronaut(), data.coffee(), data.rocket())]
held_out = patches(data.chelsea())
train_patches, test_patches = (
    torch.cat([grid.flatten(0, 1) for grid in training]),
    held_out.flatten(0, 1),
)

# %% [markdown]
# ## A channel is a bit
#
# `codebook_size` is 2 to the number of bits, at most 2⁶³, which is what an index of int64 can number. Bit i of the
# index is the sign of channel i:

# %%
quantizer = quantizers.create("bsq", dim=BITS, codebook_size=2**BITS)
z = torch.randn(5, BITS)
quantized, indices, loss = quantizer(z)


def to_bits(indices):
    """int64 [...] → [..., 32] of 0 and 1."""
    return (indices[..., None] >> torch.arange(BITS)) & 1


assert torch.equal(to_bits(indices), (z > 0).long())
assert torch.equal(quantizer.decode(indices), quantized)
print(indices.tolist())

# %% [markdown]
# Keep these indices in int64. Half of them do not fit int32, and float32 has room for 24 bits: an index that went
# through a float tensor names another code. (Masked vectors have index −1, whose bits are all ones: leave them out
# first.)
#
# BSQ divides the vector by its norm before it takes the signs, so that its error is bounded; LFQ does not.
# Everything below holds for both. [`bernoulli`](../methods/bernoulli.md) has the same codes, draws the bits in
# training, and has another loss.
#
# ## The entropy loss, and its groups
#
# Without a push, bits take one sign for nearly all vectors. The loss of LFQ and BSQ therefore contains
#
# $$
# \sum_g \left( \frac{1}{N} \sum_n H(p_{ng}) - H\Big( \frac{1}{N} \sum_n p_{ng} \Big) \right)
# $$
#
# where $p_{ng}$ is the distribution over the patterns of the bits of group $g$ that vector $n$ has. The first term
# makes each assignment certain, the second makes the patterns of the batch equally frequent. For one group of all
# bits the second term would need 2³² probabilities. With groups of one bit, as in BSQ's paper, it needs 32, but
# then **ten copies of one bit are as good as ten different bits, and training finds the copies**. The default is
# as few groups of at most 14 bits as possible:

# %%
print(quantizer.group_sizes)


# %%
class PatchCoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(192, WIDTH), nn.SiLU(), nn.Linear(WIDTH, BITS))
        self.decoder = nn.Sequential(nn.Linear(BITS, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 192))
        self.quantizer = quantizers.create("bsq", BITS, codebook_size=2**BITS, **options)

    def forward(self, x):
        quantized, indices, loss = self.quantizer(self.encoder(x))
        return self.decoder(quantized), indices, loss


def train(model, steps=300):
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        x = train_patches[torch.randint(len(train_patches), (512,))]
        reconstruction, _, loss = model(x)
        (nn.functional.mse_loss(reconstruction, x) + loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


models = {
    "groups of one bit": train(PatchCoder(group_bits=1)),
    "default groups": train(PatchCoder()),
}

# %% [markdown]
# ## Measure bits, not codes
#
# With 2³² codes and a few thousand patches, "codes used" says nothing, and [`quantizers.watch`](../monitoring.md),
# which counts every code, refuses. Measure
#
# - **each bit**: how often it is one, and its entropy. A constant bit is worth nothing.
# - **bits together**: the entropy of groups of eight, which have 256 patterns each. If it is far below the sum of
#   the eight bits' entropies, bits copy each other.

# %%
try:
    quantizers.watch(models["default groups"])
except ValueError as error:
    print("watch:", str(error)[:89], "...")


def to_groups(indices):
    """int64 [...] → [..., 4], each below 256."""
    return indices[..., None] >> torch.arange(0, BITS, 8) & 255


def entropies(indices):
    """The sums of the entropies of single bits, and of groups of eight, in bits per code."""
    bits = [metrics.code_counts(bit, 2) for bit in to_bits(indices).T]
    groups = [metrics.code_counts(group, 256) for group in to_groups(indices).T]
    return sum(map(metrics.entropy, bits)), sum(map(metrics.entropy, groups))


ratios = {"height_ratios": (1, 2.6)}
figure, axes = plt.subplots(2, 2, figsize=(7, 4.6), layout="constrained", **ratios)
found = {}
for (top, bottom), (name, model) in zip(axes.T, models.items(), strict=True):
    with torch.no_grad():
        reconstruction, indices, _ = model(test_patches)
    found[name] = single, together = entropies(indices)
    error = nn.functional.mse_loss(reconstruction, test_patches)
    print(f"{name}: bits {single:.1f}, groups of eight {together:.1f}, error {error:.3f}")
    bits = to_bits(indices).float()
    centred = bits - bits.mean(0)
    covariance = centred.T @ centred / len(bits)
    spread = covariance.diagonal().sqrt().clamp(min=1e-6)
    top.bar(range(BITS), bits.mean(0).numpy(), color="tab:gray")
    top.set(title=name, ylim=(0, 1), ylabel="share of ones")
    correlation = (covariance / spread / spread[:, None]).abs()
    shown = bottom.imshow(correlation.numpy(), vmin=0, vmax=1, cmap="Blues")
    bottom.set(xlabel="bit", ylabel="bit")
figure.colorbar(shown, ax=axes[1], label="absolute correlation")
plt.show()
assert found["groups of one bit"][1] < found["default groups"][1]

# %% [markdown]
# Bit by bit the left model does not look broken: no bit is constant. The correlations show that nearly all of its
# bits say the same, and the reconstruction is worse for it. In [our study](../results/study.md) with ten bits, the
# entropy over all ten keeps 79 to 83 % of BSQ's codes and 45 to 86 % of LFQ's in use; over single bits it keeps 5
# to 6 % and 1 to 2 %.
#
# - `entropy_weight` suits a plain squared error (0.02 for BSQ, 0.1 for LFQ). Published weights go with perceptual
#   and adversarial losses; `quantizers.scalar.published.PUBLISHED` has them, and [Presets](../presets.md) whole
#   quantizers.
# - If some bits stay constant, raise the weight a little, or start higher: `quantizers.schedules.LinearEntropy`
#   lets it fall.
# - On several GPUs the second entropy is that of the batch of all ranks.
#
# ## Predict bits with a transformer
#
# A softmax over 2³² codes is impossible; factorized heads are not. Two forms are common:
#
# - **Groups**: a softmax for each group of bits, here four of 256 (MAGVIT-v2: two of 2⁹). Bits of a group are
#   predicted jointly, groups independently of each other given the transformer's state.
# - **Bits**: 32 binary logits, all independent given the state (Infinity).
#
# The input needs no table either: the quantized vector itself, through a linear layer, is the sum of an embedding
# for each bit.
#
# As a stand-in for a transformer, a small network predicts the code of a patch from that of its left neighbour.
# Both heads give cross entropies in bits per code, which can be compared with each other, and with what the
# frequencies of the training codes alone predict.

# %%
tokenizer = models["default groups"]
with torch.no_grad():
    latents = [tokenizer.encoder(grid) for grid in [*training, held_out]]
    codes = [tokenizer.quantizer.encode(z) for z in latents]
left = torch.cat([grid[:, :-1].flatten() for grid in codes[:3]])
right = torch.cat([grid[:, 1:].flatten() for grid in codes[:3]])
test_left, test_right = codes[3][:, :-1].flatten(), codes[3][:, 1:].flatten()


class GroupHeads(nn.Module):
    """Logits over the 256 patterns of each of four groups."""

    def __init__(self, width):
        super().__init__()
        self.heads = nn.Linear(width, 4 * 256)

    def nats(self, state, targets):
        logits = self.heads(state).unflatten(-1, (4, 256))
        groups = to_groups(targets)
        return 4 * nn.functional.cross_entropy(logits.flatten(0, 1), groups.flatten())


class BitHeads(nn.Module):
    """A logit for each bit."""

    def __init__(self, width):
        super().__init__()
        self.heads = nn.Linear(width, BITS)

    def nats(self, state, targets):
        bits = to_bits(targets).float()
        logits = self.heads(state)
        return BITS * nn.functional.binary_cross_entropy_with_logits(logits, bits)


counts = torch.stack([metrics.code_counts(group, 256) for group in to_groups(right).T]) + 1
alone = -(counts / counts.sum(1, keepdim=True)).log2()  # [4, 256]
alone = alone.gather(1, to_groups(test_right).T).sum(0).mean()
print(f"frequencies alone: {alone:.1f} bits per code on held-out patches")
for heads in (GroupHeads(128), BitHeads(128)):
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(BITS, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU())
    optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=2e-3)
    for _ in range(200):
        chosen = torch.randint(len(left), (256,))
        state = trunk(tokenizer.quantizer.decode(left[chosen]))
        heads.nats(state, right[chosen]).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        nats = heads.nats(trunk(tokenizer.quantizer.decode(test_left)), test_right).item()
    weights = sum(weight.numel() for weight in heads.parameters())
    bits = nats / math.log(2)
    print(f"{type(heads).__name__}: {bits:.1f} bits per code, {weights:,} weights")

# %% [markdown]
# To sample, draw from each head and put the parts together again: `(groups << torch.arange(0, 32, 8)).sum(-1)` is
# the index, and `quantizer.decode(index)` the vector for your decoder. `quantizers.bitstream` compresses such
# indices, bit by bit: [Codes as bytes](../bitstream.md).
#
# A model that samples bits makes errors. Infinity trains its transformer on codes with random bits flipped: see
# [Training a multi-scale tokenizer](multi-scale.md).
#
# If up to 65,536 codes are enough, [FSQ](../methods/fsq.md) is simpler: it needs no entropy loss. [All
# methods](../methods/index.md).
