# %% [markdown]
# # Replace the quantizer of a trained model
#
# `plug_in` replaces the quantizer of a model that you already have, in one line, and the rest of the model does
# not notice: `encode`, `decode`, the training loop and the name of the loss stay. At the end of this guide you
# have kept the trained codes of a model, moved it to another method and seen what a warm start is worth, put the
# original back, saved and loaded the result, and taught `plug_in` a model class of your own.
#
# The model here is the `VQModel` of diffusers, small and trained for seconds on digits, so that nothing is
# downloaded. With a published one, write `VQModel.from_pretrained(...)` instead. [Models](../models.md) lists the
# other models that `plug_in` knows: taming-transformers, LlamaGen, VAR, Chameleon, DAC, EnCodec, Mimi and many
# more.

# %%
import tempfile

import matplotlib.pyplot as plt
import torch
from diffusers import VQModel
from sklearn.datasets import load_digits
from torch import nn

import quantizers
from quantizers.adapters import Adapter, QuantizerSpec, from_pretrained, register_contract

digits = torch.tensor(load_digits().images).float()[:, None] / 8 - 1  # [1797, 1, 8, 8]
held_out, training = digits[:297], digits[297:]


def train(model, steps, rate=2e-3, every=0):
    """Train; returns the held-out error every so many steps."""
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    errors = []
    for step in range(steps + 1):
        if every and step % every == 0:
            errors.append(error(model))
        images = training[torch.randint(len(training), (32,))]
        out = model.train()(images)
        (nn.functional.mse_loss(out.sample, images) + out.commit_loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return errors


@torch.no_grad()
def error(model):
    return nn.functional.mse_loss(model.eval()(held_out).sample, held_out).item()


def new_model():
    return VQModel(
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=8,
        num_vq_embeddings=64,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )


torch.manual_seed(0)
model = new_model()
train(model, 130)
trained = {name: value.clone() for name, value in model.state_dict().items()}
original_error = error(model)
print(f"{type(model.quantize).__name__}, held-out error {original_error:.3f}")

# %% [markdown]
# ## Keep the trained codes
#
# `keep_codebook=True` copies the codes and the weights of the loss. The model gives the results that it gave, and
# you can go on with what this library adds: exact search, `DeadCodeReplacement`, `quantizers.watch`, bytes,
# export.

# %%
with torch.no_grad():
    before = model(held_out).sample
    quantizers.plug_in(model, "vq", keep_codebook=True)
    after = model.eval()(held_out).sample
assert torch.allclose(before, after, atol=1e-4)
print(type(model.quantize.quantizer).__name__, f"error {error(model):.3f}")

with quantizers.watch(model) as usage, torch.no_grad():
    model(held_out)
print(usage.table())

# %% [markdown]
# Before `plug_in` changes anything, it runs the model's quantizer on a small random input beside one of its own
# with the same codes, and compares results. Many repositories have a class called `VectorQuantizer`, and some
# return other things: you then get an error that says what was met and what was expected, and the model is
# unchanged.
#
# ## Move to another method
#
# New codes mean nothing to a trained decoder, so that the error jumps, and training has to repair it. How far it
# jumps depends on where the codes start:
#
# - `ema_vq` as it is built starts with random codes.
# - `warm_start` runs k-means on the vectors that reach the quantizer, so that the new codes stand where the
#   encoder's vectors are.
# - `fsq` has a grid and no codes. Where its channels differ from the model's, it gets a projection before and
#   after, which start random: it needs more steps.
#
# Make the optimizer after `plug_in`, since the codes are other parameters. (This model was not trained to the end,
# so that training on may also improve it.)


# %%
def restored():
    """The trained model, with its own quantizer."""
    model = new_model()
    model.load_state_dict(trained)
    return model


curves = {}
for name in ("ema_vq", "ema_vq, warm start", "fsq"):
    torch.manual_seed(0)
    model = quantizers.plug_in(restored(), name.partition(",")[0])
    if "warm start" in name:
        quantizers.warm_start(model, training.split(256))
    curves[name] = train(model, 24, rate=5e-4, every=4)
    first, *_, last = curves[name]
    print(f"{name}: error {first:.3f} at first, {last:.3f} after 24 steps")
assert curves["ema_vq, warm start"][0] < curves["ema_vq"][0]

figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for name, errors in curves.items():
    axes.plot(range(0, 25, 4), errors, marker=".", label=name)
axes.axhline(original_error, color="black", linestyle="--", label="trained model")
axes.set(xlabel="steps after plug_in", ylabel="held-out error", yscale="log")
axes.legend(frameon=False, fontsize=9)
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# If encoder and decoder must not change, freeze them and train the quantizer alone: `model.requires_grad_(False)`
# before `plug_in(model, name, trainable=True)`. Without `trainable`, a quantizer in a frozen model is frozen, too,
# and a warning says so.
#
# ## Put the original back
#
# `unplug` restores the quantizer that the model came with. Encoder and decoder keep what they learned meanwhile.

# %%
model = quantizers.plug_in(restored(), "simvq")
assert error(model) != original_error
quantizers.unplug(model)
assert error(model) == original_error
print(type(model.quantize).__name__)

# %% [markdown]
# ## Save and load
#
# `save_pretrained` writes the new quantizer together with the model, and `quantizers.adapters.from_pretrained`
# reads both. `VQModel.from_pretrained` itself does not know this library, and would restore the original
# quantizer, untrained.

# %%
model = quantizers.plug_in(restored(), "fsq", levels=(4, 4, 4))
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    loaded = from_pretrained(VQModel, folder)
assert error(loaded) == error(model)
print(loaded.quantize.quantizer)

# %% [markdown]
# For a pipeline, pass the loaded model: `DiffusionPipeline.from_pretrained(folder, vqvae=loaded)`. For a model
# without `save_pretrained`, its `state_dict` contains the quantizer: build the model, call `plug_in` with the same
# options, and load. [Saving](../saving.md) has the rest.
#
# ## A model class of your own
#
# If your quantizer is called in the same way as one that `plug_in` knows, name its contract:
# `plug_in(model, "simvq", at="bottleneck.vq", contract="taming")`. Otherwise an adapter of a few lines says how
# your model calls it. Here is a model whose quantizer takes `[B, T, C]` and returns a dictionary:


# %%
class MyQuantizer(nn.Module):
    def __init__(self, codes, width):
        super().__init__()
        self.table = nn.Parameter(torch.randn(codes, width))

    def forward(self, x):
        tokens = torch.cdist(x, self.table.expand(len(x), -1, -1)).argmin(-1)
        chosen = self.table[tokens]
        return {
            "tokens": tokens,
            "vectors": x + (chosen - x).detach(),
            "loss": (chosen - x).square().mean(),
        }


class MyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.bottleneck, self.decoder = (
            nn.Linear(16, 8),
            MyQuantizer(32, 8),
            nn.Linear(8, 16),
        )

    def forward(self, x):
        found = self.bottleneck(self.encoder(x))
        return self.decoder(found["vectors"]), found["loss"]


class MyAdapter(Adapter):
    contract = "mine"
    classes = ("MyQuantizer",)

    @classmethod
    def read_spec(cls, original):
        codes, width = original.table.shape
        return QuantizerSpec(dim=width, codebook_size=codes, channel_dim=-1)

    @classmethod
    def trained_codebook(cls, original):  # for keep_codebook
        return original.table

    def forward(self, x):
        vectors, tokens, loss = self.quantizer(x)
        return {"tokens": tokens, "vectors": vectors, "loss": loss}


register_contract(MyAdapter)
model, x = MyModel().eval(), torch.randn(2, 10, 16)
before = model(x)[0]
quantizers.plug_in(model, "vq", keep_codebook=True)
assert torch.allclose(model(x)[0], before, atol=1e-5)
quantizers.plug_in(model, "residual", quantizer="simvq", num_quantizers=2)
print(model.bottleneck(model.encoder(x))["tokens"].shape)

# %% [markdown]
# A second `plug_in` discards what the first one put in; `unplug` always returns to the model's own.
#
# If you write the model yourself, you need no adapter: put `quantizers.create(...)` where the quantizer goes, as
# in [Your autoencoder](../your-autoencoder.md). If the swapped model trains badly, see
# [Troubleshooting](../troubleshooting.md).
