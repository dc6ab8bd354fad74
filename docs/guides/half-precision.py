# %% [markdown]
# # Half precision
#
# Quantizers of this library work inside models in bfloat16 and float16: whatever the model computes in, codes,
# distances and losses stay in float32. A few wrappers need a setting for that.
#
# At the end of this guide you have seen why it matters, trained a model under bf16 autocast and under fp16 with a
# gradient scaler, and cast one to bf16 as a whole; you know the wrappers, and how to check.

# %%
import warnings

import matplotlib.pyplot as plt
import torch
from skimage import data
from torch import nn

import quantizers

SIDE = 8
torch.manual_seed(0)


def patches(photograph):
    """uint8 [H, W, 3] → float32 [count, 192] in [−1, 1]: patches of 8 × 8 pixels."""
    pixels = torch.tensor(photograph) / 127.5 - 1
    return pixels.unfold(0, SIDE, SIDE).unfold(1, SIDE, SIDE).flatten(2).flatten(0, 1)


photographs = (data.astronaut(), data.coffee(), data.rocket())
training = torch.cat([patches(photograph) for photograph in photographs])
held_out = patches(data.chelsea())

# %% [markdown]
# ## Why the search is not done in half precision
#
# bfloat16 keeps eight binary digits, so that distances to codes that lie close together round to the same number.
# Here the vectors are patches of photographs, already in bf16, and the codes are other patches. How many indices
# are wrong if the usual formula ‖e‖² − 2 z·e runs in bf16? How many if only the codes are rounded?

# %%
x = held_out.bfloat16()
sizes = (64, 256, 1024, 4096)
wrong = {"codes and arithmetic in bf16": [], "codes in bf16": [], "this library": []}
for size in sizes:
    codes = training[torch.randperm(len(training))[:size]]
    quantizer = quantizers.create("vq", dim=codes.shape[1], codebook=codes).eval()
    exact = torch.cdist(x.double(), codes.double()).argmin(1)
    half = codes.bfloat16()
    found = {
        "codes and arithmetic in bf16": (half.square().sum(1) - 2 * x @ half.T).argmin(1),
        "codes in bf16": torch.cdist(x.double(), half.double()).argmin(1),
        "this library": quantizer.encode(x),
    }
    for name, indices in found.items():
        wrong[name].append(100 * (indices != exact).float().mean().item())
assert max(wrong["this library"]) == 0

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for name, percent in wrong.items():
    axes.plot(sizes, percent, marker="o", label=name)
axes.set(xscale="log", xlabel="codes", ylabel="wrong indices, %")
axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
axes.minorticks_off()
axes.legend(frameon=False, fontsize=9)
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# The library takes a half-precision vector as the number that it is, and finds its nearest code exactly. The
# guarantee is about the same vectors: an *encoder* in bf16 gives slightly other vectors than one in float32, and
# some of those have other codes; we measure that below.
#
# ## Autocast
#
# Put the quantizer inside autocast like the rest of the model. The quantized vectors have the dtype of what the
# encoder gave, so that the decoder goes on in it; indices are int64, and the loss is float32. With fp16 use a
# gradient scaler, as always: a step that it skips because gradients overflowed changes no code that the loss
# trains. (The moving averages of `ema_vq` follow the vectors of each forward.)


# %%
class PatchCoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(192, 128), nn.SiLU(), nn.Linear(128, 16))
        self.decoder = nn.Sequential(nn.Linear(16, 128), nn.SiLU(), nn.Linear(128, 192))
        self.quantizer = quantizers.create("vq", dim=16, codebook_size=256)

    def forward(self, x):
        quantized, indices, loss = self.quantizer(self.encoder(x))
        return self.decoder(quantized), indices, loss


def train(model, dtype=None, scaled=False, steps=100):
    """Train under autocast, unless `dtype` is None."""
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)  # "cuda" on a GPU
    replacement = quantizers.DeadCodeReplacement(model, optimizer, decay=0.95)
    for _ in range(steps):
        x = training[torch.randint(len(training), (256,))]
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            reconstruction, _, loss = model(x)
        loss = nn.functional.mse_loss(reconstruction.float(), x) + loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        replacement.step()
    return model.eval()


@torch.no_grad()
def report(name, model):
    reconstruction, indices, _ = model(held_out)
    error = nn.functional.mse_loss(reconstruction, held_out)
    codes, dtype = indices.unique().numel(), model.quantizer.codebook.dtype
    print(f"{name:16} error {error:.4f}, {codes} codes, codebook {dtype}")


full = train(PatchCoder())
report("float32", full)
report("bf16 autocast", train(PatchCoder(), torch.bfloat16))
report("fp16, scaled", train(PatchCoder(), torch.float16, scaled=True))

# %% [markdown]
# ## A model that is cast
#
# `model.bfloat16()`, `model.half()` and `model.to(dtype)` cast encoder and decoder, and leave the quantizer's
# state in float32. So do `from_pretrained(dtype=...)`, `torch.set_default_dtype` and Lightning's "bf16-true".

# %%
model = PatchCoder()
model.load_state_dict(full.state_dict())
model.eval().bfloat16()
dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
print("encoder", dtypes["encoder.0.weight"], "codes", model.quantizer.codebook.dtype)

with torch.no_grad():
    z = model.encoder(held_out.bfloat16())
    quantized, indices, loss = model.quantizer(z)
    print("quantized", quantized.dtype, "loss", loss.dtype)
    # The codes are those of the same vectors in float32 ...
    assert torch.equal(indices, full.quantizer.encode(z.float()))
    # ... while an encoder in float32 gives other vectors.
    changed = (indices != full.quantizer.encode(full.encoder(held_out))).float().mean()
print(f"tokens that change with the encoder's dtype: {changed:.1%}")

# %% [markdown]
# The vectors of such tokens lie near the border between two cells. But a transformer that was trained on tokens of
# one dtype should get tokens of the same dtype: write tokens of a data set, and later those of prompts, with the
# encoder in one dtype.
#
# `decode` returns float32; cast it for a decoder in bf16.
#
# ## Wrappers that replace the state
#
# Some wrappers do not cast modules, but exchange their tensors in each step. Then the codes are rounded, although
# all arithmetic stays in float32, and the quantizer warns once:

# %%
rounded = quantizers.create("vq", dim=16, codebook_size=256)
for parameter in rounded.parameters():
    parameter.data = parameter.data.bfloat16()  # as a wrapper does
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    rounded(torch.randn(100, 16))
assert "its codes are rounded" in str(caught[0].message)
rounded.train()  # train() and eval() restore float32, but not the digits that are lost
assert rounded.codebook.dtype == torch.float32

# %% [markdown]
# The settings that keep codes in float32:
#
# | wrapper | setting |
# |---|---|
# | `DistributedDataParallel`, accelerate's `"bf16"`, Lightning's `"bf16-mixed"` | nothing |
# | `fully_shard` with a policy, or after `model.bfloat16()` | first `fully_shard(model.quantizer)`, see below |
# | `FullyShardedDataParallel`, likewise | first `model.quantizer = FullyShardedDataParallel(model.quantizer)` |
# | DeepSpeed, ZeRO 0 to 3 | `"torch_autocast": {"enabled": true, "dtype": "bfloat16"}` instead of `"bf16"` |
# | peft's LoRA | `LoraConfig(..., modules_to_save=["quantizer"])`, or the quantizer's parameters are frozen |
# | torchao's `quantize_`, `convert_to_float8_training`, `quantize_dynamic` | nothing (they change `nn.Linear`) |
#
# torchao leaves the projections of a quantizer alone; only a map of your own (`SimVQ(transform=...)`) may contain
# `nn.Linear`. DeepSpeed's `"bf16"` setting trains with rounded codes.
#
# Tested with torch 2.13.0, deepspeed 0.19.8 (bf16, on a CPU), lightning 2.6.6, accelerate 1.15.0, peft 0.21.2 and
# torchao 0.18.0.
#
# ```python
# from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
#
#
# def shard(model, policy):
#     fully_shard(model.quantizer)  # its codes stay in float32
#     for method in ("encode", "decode", "candidates"):  # to call them outside the model's forward, on all ranks
#         register_fsdp_forward_method(model.quantizer, method)
#     return fully_shard(model, mp_policy=policy)
# ```
#
# [The guide to DDP, FSDP, torch.compile and export](scaling.md) has the rest about several GPUs.
#
# ## How to check
#
# - Turn the warning into an error while you set up a training:
#   `warnings.filterwarnings("error", message=".*its codes are rounded")`.
# - Look at `quantizer.codebook.dtype` inside a step, and at `loss.dtype`.
# - Compare tokens: `quantizer.encode(z)` and `quantizer.encode(z.float())` must be equal.

# %%
z = torch.randn(1000, 16, dtype=torch.bfloat16)
for name in ("vq", "ema_vq", "simvq", "fsq", "lfq", "bsq", "residual"):
    quantizer = quantizers.create(name, dim=16, codebook_size=256)
    assert torch.equal(quantizer.encode(z), quantizer.encode(z.float())), name

# %% [markdown]
# On a GPU, `torch.set_float32_matmul_precision("high")` and `"medium"` make the search faster and allow wrong
# indices; the default, `"highest"`, is exact. [Guarantees](../guarantees.md) and [Speed](../results/speed.md) have
# the numbers. If a loss becomes NaN or indices differ between machines, see
# [Troubleshooting](../troubleshooting.md).
