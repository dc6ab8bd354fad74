# %% [markdown]
# # Tokenize video
#
# A video tokenizer turns a clip into a small block of tokens, over time as well as over space. At the end of this
# guide you have trained one on clips of moving shapes, with a causal 3-D encoder and [FSQ](../methods/fsq.md), as
# in Cosmos and VidTok, and with [LFQ](../methods/lfq.md), as in MAGVIT-v2. It codes single images and longer clips
# than it was trained on, and its tokens can be written and read frame by frame.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

import quantizers

FRAMES, SIDE = 9, 32
torch.manual_seed(0)


def moving_shapes(count, frames=FRAMES):
    """Clips of a disc and a square, which bounce off the edges: [count, 3, frames, 32, 32]."""
    time = torch.arange(frames)
    y, x = torch.arange(SIDE)[:, None], torch.arange(SIDE)
    clips = torch.full((count, 3, frames, SIDE, SIDE), 0.0)
    for clip in clips:
        for shape in ("disc", "square"):
            start, speed, radius = (
                64 * torch.rand(2),
                6 * torch.rand(2) - 3,
                4 + 4 * torch.rand(()),
            )
            place = start[:, None] + speed[:, None] * time
            row, column = (place % 64 - 32).abs()  # from 0 to 32 and back
            dy, dx = y - row[:, None, None], x - column[:, None, None]
            disc, square = (dy**2 + dx**2).sqrt(), torch.maximum(dy.abs(), dx.abs())
            distance = disc if shape == "disc" else square
            inside = (radius - distance).clamp(0, 1)  # [frames, 32, 32], with a soft edge
            colour = 2.0 * torch.randint(2, (3, 1, 1, 1)) - 1
            clip.mul_(1 - inside).add_(colour * inside)
    return clips


training, held_out = moving_shapes(256), moving_shapes(64)
print("clips", tuple(training.shape))

# %% [markdown]
# ## A causal encoder
#
# One token stands for a patch of 4 × 4 pixels over 4 frames. The first frame is repeated three times before the
# clip, so that it is a patch by itself: 1 + 8 frames become 1 + 2 frames of tokens. Convolutions pad time on the
# left alone, so that no token depends on later frames. An image is then a clip of one frame, and images and video
# share a tokenizer.


# %%
class CausalConv3d(nn.Conv3d):
    """A 3 × 3 × 3 convolution that sees the present and the two steps before it."""

    def __init__(self, channels):
        super().__init__(channels, channels, 3, padding=(0, 1, 1))

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 0, 0, 0, 2, 0)))


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.SiLU(),
            CausalConv3d(channels),
            nn.SiLU(),
            nn.Conv3d(channels, channels, kernel_size=1),
        )

    def forward(self, x):
        return x + self.layers(x)


class VideoTokenizer(nn.Module):
    def __init__(self, name, width=32, dim=16, **options):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(
            nn.Conv3d(3, width, kernel_size=4, stride=4),
            Block(width),
            nn.Conv3d(width, dim, kernel_size=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv3d(dim, width, kernel_size=1),
            Block(width),
            nn.ConvTranspose3d(width, 3, kernel_size=4, stride=4),
        )
        self.quantizer = quantizers.create(name, dim=dim, channel_dim=1, **options)

    def to_latents(self, clips):
        first = clips[:, :, :1].expand(-1, -1, 3, -1, -1)
        return self.encoder(torch.cat([first, clips], dim=2))

    def to_clips(self, quantized):
        return self.decoder(quantized)[:, :, 3:]

    def forward(self, clips):
        quantized, indices, loss = self.quantizer(self.to_latents(clips))
        return self.to_clips(quantized), indices, loss

    def encode(self, clips):
        return self.quantizer.encode(self.to_latents(clips))

    def decode(self, indices):
        return self.to_clips(self.quantizer.decode(indices))


# %% [markdown]
# `channel_dim=1` is all that a quantizer needs to know of `[B, C, T, H, W]`; the indices are `[B, T, H, W]`. FSQ
# has the grid of Cosmos here, 64,000 codes of six channels, and brings the projections from 16 channels to six and
# back. LFQ takes the signs of all 16 channels, 65,536 codes.


# %%
def train(model, steps=170):
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    for _ in range(steps):
        clips = training[torch.randint(len(training), (12,))]
        reconstruction, _, loss = model(clips)
        (nn.functional.mse_loss(reconstruction, clips) + loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


models = {
    "fsq": train(VideoTokenizer("fsq", levels=(8, 8, 8, 5, 5, 5))),
    "lfq": train(VideoTokenizer("lfq", codebook_size=2**16)),
}
for name, model in models.items():
    with torch.no_grad():
        reconstruction, indices, _ = model(held_out)
    share = nn.functional.mse_loss(reconstruction, held_out) / held_out.var()
    counts = quantizers.metrics.code_counts(indices, model.quantizer.codebook_size)
    used, bits = (counts > 0).sum(), quantizers.metrics.entropy(counts)
    print(f"{name}: error {share:.0%} of variance, {used} codes, {bits:.1f} bits per token")

# %%
model = models["fsq"]
with torch.no_grad():
    decoded = model(held_out[:2])[0]
shown = [held_out[0], decoded[0], held_out[1], decoded[1]]
figure, axes = plt.subplots(4, FRAMES, figsize=(8, 3.7), layout="constrained")
for line, clip, label in zip(axes, shown, ["clip", "decoded"] * 2, strict=True):
    for axis, frame in zip(line, clip.transpose(0, 1), strict=True):
        axis.imshow((frame.clamp(-1, 1).permute(1, 2, 0) / 2 + 0.5).numpy())
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(label, fontsize=9)
plt.show()

# %% [markdown]
# The 64 held-out clips have 12,288 tokens. Most tokens of these clips are background, so that the bits per token
# are far below the 16 that a codebook of this size could carry. Count on held-out clips of your own data before
# you choose a codebook size. Beyond 65,536 codes, see [Binary codes](binary-codes.md).
#
# ## What causality gives
#
# The tokens of the first frames are the same whatever follows, and the decoder reads a prefix of the tokens. So a
# transformer that writes frame after frame can show them as it goes, an image is coded as the first frame of a
# clip, and clips of another length work.

# %%
clip = moving_shapes(1, frames=17)
with torch.no_grad():
    tokens = model.encode(clip)
    decoded = model.decode(tokens)
    print("17 frames", tuple(tokens.shape), "→", tuple(decoded.shape))
    assert torch.equal(model.encode(clip[:, :, :1]), tokens[:, :1])  # an image
    assert torch.equal(model.encode(clip[:, :, :9]), tokens[:, :3])  # the first half
    assert torch.allclose(model.decode(tokens[:, :3]), decoded[:, :, :9], atol=1e-4)

# %% [markdown]
# For a transformer, flatten the tokens to `tokens.flatten(1)`: all of the first frame, then all of the second.
# Normalization layers break causality if they average over time (`nn.GroupNorm`, `nn.BatchNorm3d`): normalize over
# channels, or frame by frame.
#
# ## Published quantizers
#
# | preset | model | tokens | codes |
# |---|---|---|---|
# | `preset:cosmos_dv8x16x16` | Cosmos-Tokenizer-DV8x16x16 | one for 8 frames of 16 × 16 pixels | 64,000 |
# | `preset:vidtok_4x8x8_4096` | VidTok, FSQ-4096 | one for 4 frames of 8 × 8 pixels | 4,096 |
# | `preset:vidtok_4x8x8_262144` | VidTok, FSQ-262,144 | the same | 262,144 |
# | `preset:emu3` | Emu3, vision tokenizer | 64 × 64 for 4 frames of 512 × 512 pixels | 32,768 |

# %%
quantizer = quantizers.create("preset:cosmos_dv8x16x16", channel_dim=1)
z = torch.randn(1, 6, 3, 16, 16)  # of 17 frames of 256 × 256 pixels
quantized, indices, loss = quantizer(z)
print(tuple(indices.shape), quantizer.level_counts)

# %% [markdown]
# - [Presets](../presets.md) has sources, and what differs from the published models.
# - [`plug_in`](existing-models.md) replaces the quantizer of a video tokenizer that is trained already: VidTok of
#   diffusers, Cosmos, Emu3.
# - A multi-scale quantizer codes video from coarse to fine, with a share for each axis, such as
#   `scales=((1, 1/4, 1/4), (1, 1/2, 1/2), (1, 1, 1))` and `axes=3`: [Train a multi-scale
#   tokenizer](multi-scale.md).
