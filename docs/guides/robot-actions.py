# %% [markdown]
# # Tokens for robot actions
#
# At the end you will have a tokenizer that turns chunks of continuous actions, `[batch, time, action]`, into a few
# tokens, a figure of its error against bits, and a small policy that predicts the tokens. Policies predict tokens
# because demonstrations disagree: where some pass an obstacle on the left and some on the right, regression
# predicts the mean, which hits it. A distribution over tokens keeps both ways, as in BeT, in VQ-BeT [1], and in
# language models that drive robots.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

import quantizers

torch.manual_seed(0)
TIME, ACTIONS, RADIUS = 16, 3, 0.3  # actions of a chunk, numbers of an action, metres

# %% [markdown]
# ## Demonstrations
#
# A gripper moves from the left to the right around an obstacle at the origin, on either side. An action is a step
# in metres (x, y) and the turn of the wrist in degrees; a chunk has 16 actions. The observation is the heights of
# start and goal.


# %%
def demonstrations(count):
    start, goal, detour, speed = torch.rand(4, count, 1)
    side = torch.randint(2, (count, 1)) * 2 - 1
    time = torch.linspace(0, 1, TIME + 1).expand(count, -1)
    time = time + 0.1 * (speed - 0.5) * torch.sin(math.pi * time)  # some are faster at first, some at the end
    start, goal = 0.6 * start - 0.3, 0.6 * goal - 0.3
    x = 2 * time - 1
    y = start + (goal - start) * time + side * (0.65 + 0.3 * detour) * torch.sin(math.pi * time)
    steps = torch.stack([x, y], -1).diff(dim=1)
    wrist = torch.rad2deg(torch.atan2(steps[..., 1], steps[..., 0]))
    actions = torch.cat([steps, wrist[..., None]], -1)
    scale = torch.tensor([0.0005, 0.0005, 0.3])  # of the tremor of a hand
    return torch.cat([start, goal], -1), actions + scale * torch.randn(actions.shape)


observations, actions = demonstrations(4000)
held_out_observations, held_out = demonstrations(1000)
print(actions.shape)

# %% [markdown]
# ## Normalize first
#
# Quantization minimizes a squared error, and degrees are larger numbers than metres. Without normalization the
# codes describe the wrist, and of the rest only what goes with it. Use the statistics of the training set, and
# store them with the model. (Where data has outliers, quantiles are usual instead of mean and deviation.)

# %%
mean, deviation = actions.mean((0, 1)), actions.std((0, 1))


def normalize(actions):
    return (actions - mean) / deviation


def error(original, decoded):
    """The squared error in each component of an action, as a share of its variance."""
    return (original - decoded).square().mean((0, 1)) / deviation.square()


def through_kmeans(fitted, test):
    quantizer = quantizers.create("residual", TIME * ACTIONS, num_quantizers=2, codebook_size=16).eval()
    quantizers.fit(quantizer, fitted.flatten(1))
    return quantizer.decode(quantizer.encode(test.flatten(1))).detach().view_as(test)


raw = error(held_out, through_kmeans(actions, held_out))
scaled = error(held_out, through_kmeans(normalize(actions), normalize(held_out)) * deviation + mean)
print("share of the variance that is lost in   x      y    wrist")
print("8 bits, actions as they are         ", *(f"{value:6.1%}" for value in raw))
print("8 bits, normalized                  ", *(f"{value:6.1%}" for value in scaled))

# %% [markdown]
# ## The tokenizer
#
# As in VQ-BeT, a small network maps a chunk to a vector, residual VQ quantizes it, and another network maps it
# back. `quantizer` is all that changes from one method to another. VQ-BeT's own quantizer is a preset: two
# codebooks of 16 codes.


# %%
DIM = 32


class Tokenizer(nn.Module):
    def __init__(self, quantizer, width=128):
        super().__init__()
        size = TIME * ACTIONS
        self.encoder = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, DIM))
        self.quantizer = quantizer
        self.decoder = nn.Sequential(nn.Linear(DIM, width), nn.GELU(), nn.Linear(width, size))

    def forward(self, chunks):
        quantized, indices, loss = self.quantizer(self.encoder(normalize(chunks).flatten(1)))
        return self.decoder(quantized).view(-1, TIME, ACTIONS), indices, loss

    @torch.no_grad()
    def encode(self, chunks, **options):
        return self.quantizer.encode(self.encoder(normalize(chunks).flatten(1)), **options)

    @torch.no_grad()
    def decode(self, tokens):
        return self.decoder(self.quantizer.decode(tokens)).view(-1, TIME, ACTIONS) * deviation + mean


def train(quantizer, steps, batch=256):
    tokenizer = Tokenizer(quantizer)
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chunks = actions[torch.randint(len(actions), (batch,))]
        decoded, _, loss = tokenizer(chunks)
        ((decoded - normalize(chunks)).square().mean() + loss).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return tokenizer.eval()


residual = train(quantizers.create("preset:vq_bet", dim=DIM, num_quantizers=4, dropout=0.5), steps=300)
fsq = train(quantizers.create("fsq", DIM, levels=[8] * 6), steps=600)
print(residual.encode(held_out).shape, fsq.encode(held_out).shape)

# %% [markdown]
# ## Error against bits
#
# Thanks to `dropout` the residual tokenizer decodes any number of its codebooks. Beside it: FSQ with six channels
# of eight levels, residual k-means on the chunks themselves (`fit`, without a network), and the common baseline
# that cuts the range of each number into equal bins, which needs a token per number.


# %%
def lost(decoded):
    return 100 * float(error(held_out, decoded.detach()).mean())


codebooks = (1, 2, 3, 4)
lines = {
    "residual VQ": [(4 * n, lost(residual.decode(residual.encode(held_out, num_codebooks=n)))) for n in codebooks]
}
lines["FSQ"] = [(18, lost(fsq.decode(fsq.encode(held_out))))]

kmeans = quantizers.create("residual", TIME * ACTIONS, num_quantizers=4, codebook_size=16).eval()
quantizers.fit(kmeans, normalize(actions).flatten(1))
flat = normalize(held_out).flatten(1)
lines["residual k-means"] = [
    (4 * n, lost(kmeans.decode(kmeans.encode(flat, num_codebooks=n)).view_as(held_out) * deviation + mean))
    for n in codebooks
]

low, high = actions.amin((0, 1)), actions.amax((0, 1))
lines["bins"] = []
for bits in (2, 3, 4, 5):
    bins = ((held_out - low) / (high - low) * 2**bits).floor().clamp(0, 2**bits - 1)
    lines["bins"].append((TIME * ACTIONS * bits, lost(low + (bins + 0.5) / 2**bits * (high - low))))

figure, axes = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
for (name, points), marker in zip(lines.items(), "osDx", strict=True):
    axes.plot(*zip(*points, strict=True), marker=marker, label=name)
axes.set(xscale="log", yscale="log", xlabel="bits per chunk of 16 actions", ylabel="variance lost (%), held-out")
axes.set_xticks((4, 8, 16, 32, 64, 128, 256), (4, 8, 16, 32, 64, 128, 256))
axes.minorticks_off()
axes.grid(alpha=0.3)
axes.legend(loc=(0.42, 0.5))
plt.show()
assert lines["residual VQ"][-1][1] < lines["bins"][0][1]  # 16 bits are better than 96

# %% [markdown]
# The actions of a chunk depend on each other, and a code describes all of them at once. Try k-means first: it
# takes a moment and has nothing to tune. A network can also take in what k-means cannot, such as an image.
#
# ## A policy over tokens
#
# The policy predicts the first code from the observation, and the second from the observation and the first.
# Beside it, the same network predicts the mean action.


# %%
def network(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, outputs))


CODES = 16
tokens = residual.encode(actions, num_codebooks=2)
first, second, regression = network(2, CODES), network(2 + CODES, CODES), network(2, TIME * ACTIONS)
networks = nn.ModuleList([first, second, regression])
optimizer = torch.optim.Adam(networks.parameters(), lr=3e-3)
for _ in range(300):
    rows = torch.randint(len(actions), (256,))
    seen, (code, next_code) = observations[rows], tokens[rows].unbind(-1)
    given = torch.cat([seen, F.one_hot(code, CODES)], -1)
    loss = F.cross_entropy(first(seen), code) + F.cross_entropy(second(given), next_code)
    loss = loss + (regression(seen) - normalize(actions[rows]).flatten(1)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def sample(seen):
    code = torch.distributions.Categorical(logits=first(seen)).sample()
    given = torch.cat([seen, F.one_hot(code, CODES)], -1)
    next_code = torch.distributions.Categorical(logits=second(given)).sample()
    return residual.decode(torch.stack([code, next_code], -1))


@torch.no_grad()
def predict_mean(seen):
    return regression(seen).view(-1, TIME, ACTIONS) * deviation + mean


def paths(seen, actions):
    start = torch.stack([-torch.ones(len(seen)), seen[:, 0]], -1)[:, None]
    return torch.cat([start, start + actions[..., :2].cumsum(1)], 1)


def hits(path):
    return 100 * float((path.norm(dim=-1).amin(1) < RADIUS).float().mean())


seen = held_out_observations
drawn = {
    "demonstrations": paths(seen, held_out),
    "mean action": paths(seen, predict_mean(seen)),
    "sampled tokens": paths(seen, sample(seen)),
}
figure, panels = plt.subplots(1, 3, figsize=(8, 2.9), sharey=True, layout="constrained")
for axes, (title, path) in zip(panels, drawn.items(), strict=True):
    axes.add_patch(plt.Circle((0, 0), RADIUS, color="0.6"))
    x, y = path[:40].unbind(-1)
    axes.plot(x.T, y.T, color="C0", alpha=0.4)
    axes.set(title=f"{title}\n{hits(path):.0f} % hit the obstacle", xlabel="m", aspect="equal")
panels[0].set_ylabel("m")
plt.show()
assert hits(drawn["sampled tokens"]) < hits(drawn["mean action"])

# %% [markdown]
# VQ-BeT adds a small offset to the decoded actions, predicted by another head, for the detail that few codes leave
# out. With more codebooks the tokens hold that detail themselves.
#
# ## Where to go on
#
# - [Residual quantization](../methods/residual.md), [FSQ](../methods/fsq.md), and [presets](../presets.md):
#   `vq_bet` with its source.
# - A trained VQ-BeT of LeRobot: [existing models](existing-models.md).
# - [Codes that stay in use](../codebook-in-use.md); [several frame rates in one chunk](../methods/multiscale.md).
#
# [1] Lee et al.: Behavior Generation with Latent Actions, 2024, [2403.03181](https://arxiv.org/abs/2403.03181)
