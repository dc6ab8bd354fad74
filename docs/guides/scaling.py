# %% [markdown]
# # DDP, FSDP, torch.compile, torch.export and ONNX
#
# At the end you will have trained one model in four ways, plain, compiled, under `DistributedDataParallel` and
# under FSDP2, with the same result bit for bit, and exported its quantizer to files that run elsewhere. Quantizers
# need no special treatment here. This guide says what to call, what is guaranteed, and the few things to know.

# %%
import copy
import logging
import tempfile
import warnings

import numpy as np
import onnxruntime
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import quantizers
from quantizers.export import Decode, Encode, plain

warnings.simplefilter("ignore")  # torch.compile and the exporters warn of what they do themselves
logging.getLogger("torch.onnx").setLevel(logging.ERROR)

# %% [markdown]
# The model has codes that are moving averages, the hardest case: a forward in training changes them. Batches
# differ in size, as the last one of an epoch does.


# %%
class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(32, 16)
        self.quantizer = quantizers.create("ema_vq", dim=16, codebook_size=64)
        self.decoder = nn.Linear(16, 32)

    def forward(self, x):
        quantized, _, loss = self.quantizer(self.encoder(x))
        return (self.decoder(quantized) - x).square().mean() + loss


torch.manual_seed(0)
initial = Autoencoder()
batches = [torch.randn(size, 10, 32) for size in (64, 64, 17)]


def train(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in batches:
        model(batch).backward()
        optimizer.step()
        optimizer.zero_grad()


def assert_same(state):
    for name, value in expected.state_dict().items():
        assert torch.equal(state[name], value), name


expected = copy.deepcopy(initial)
train(expected)
print("codes moved:", not torch.equal(expected.quantizer.codebook, initial.quantizer.codebook))

# %% [markdown]
# ## torch.compile
#
# A quantizer compiles to one graph, forward and backward, for all batch sizes, so `fullgraph=True` works for the
# whole model. No step reads a value back from the device. (On a GPU without Triton the search runs in plain
# PyTorch, which does.)
#
# `aot_eager` computes exactly what eager mode does, and lets us compare. The default backend, Inductor, is the
# fast one; as with any model, it may round the layers around the quantizer differently.

# %%
model = copy.deepcopy(initial)
train(torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager"))
assert_same(model.state_dict())
print("torch.compile: the same codes")

# %% [markdown]
# ## Data parallel
#
# Wrap the model as usual, and leave `find_unused_parameters` alone: every parameter gets a gradient in each step,
# which is zero for stages that a residual quantizer leaves out. Here one process is the whole group; with
# `torchrun --nproc-per-node 8 train.py` each of eight would get its share of the batch, and the code is the same.

# %%
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)

model = DistributedDataParallel(copy.deepcopy(initial))
train(model)
assert_same(model.module.state_dict())
print("DistributedDataParallel: the same codes")

model = fully_shard(copy.deepcopy(initial))
train(model)
shards = model.state_dict()
assert_same({name: part.full_tensor() if hasattr(part, "full_tensor") else part for name, part in shards.items()})
print("FSDP2: the same codes")
dist.destroy_process_group()

# %% [markdown]
# What holds with several ranks, however the batch is split, even if a rank gets no vectors at all or only masked
# ones:
#
# - **Codes that are moving averages** are bit-equal on all ranks after each step, and equal those of one process
#   on the whole batch up to the order of summation.
# - **Codes with gradients** are averaged by DDP or FSDP, like all parameters.
# - **Communication**: one all-reduce per step for each codebook of moving averages and each `normalized_fsq`, and
#   for each batch entropy of `lfq` and `bsq` one in forward and one in backward. Nothing for other methods;
#   nothing in evaluation, in `encode` and in `decode`.
# - `warm_start`, `DeadCodeReplacement` and `fit` give the same codes to all ranks.
#
# and what it asks of you:
#
# - Every rank runs the same number of training forwards, with an empty batch if it has no data left.
# - Every rank calls `warm_start`, `replacement.step()`, and the `compute`, `scalars` and `table` of
#   [usage](../monitoring.md).
# - Each rank may choose its own `num_codebooks`.
# - `process_group=None` keeps the statistics of `ema_vq`, `lfq` or `bsq` local to each rank; a `torch.distributed`
#   group sums them over that group.
# - With parameters in bfloat16, FSDP2 needs one line more, `fully_shard(model.quantizer)` first, so that codes
#   stay in float32. DeepSpeed, Lightning, accelerate and peft have settings of their own: see [the
#   table](half-precision.md#wrappers-that-replace-the-state). PyTorch 2.13 warns of any module that is sharded by
#   itself and returns a view; heed it, and do not change `quantized` in place.
#
# The tests train every quantizer under DDP on two ranks, and those that the others are made of also on four and
# under FSDP2. [Guarantees](../guarantees.md) says what else they check.
#
# ## torch.export
#
# `Encode` and `Decode` are modules whose forward is `encode` and `decode`. All axes but the channels may be free.
# The saved program runs where `quantizers` is imported.

# %%
quantizer = expected.quantizer.eval()
x = torch.randn(5, 7, 16)
indices = quantizer.encode(x)

free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
encode = torch.export.export(Encode(quantizer), (torch.randn(2, 10, 16),), dynamic_shapes=[free])
decode = torch.export.export(Decode(quantizer), (torch.zeros(2, 10, dtype=torch.int64),), dynamic_shapes=[free])
with tempfile.TemporaryDirectory() as folder:
    torch.export.save(encode, f"{folder}/encode.pt2")
    loaded = torch.export.load(f"{folder}/encode.pt2").module()
assert torch.equal(loaded(x), indices)
assert torch.equal(decode.module()(indices), quantizer.decode(indices))

# %% [markdown]
# A program cannot raise for its input: an index that does not exist decodes to NaN.
#
# ## ONNX
#
# `plain` rewrites a program in PyTorch's own operations, which ONNX has. The graph searches in float64, and ONNX
# Runtime returns the same indices, without this library and without PyTorch.


# %%
def run(program, value):
    graph = torch.onnx.export(plain(program), dynamo=True, verbose=False)  # .save("encode.onnx") writes a file
    session = onnxruntime.InferenceSession(graph.model_proto.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: value.numpy()})[0]


assert np.array_equal(run(encode, x), indices.numpy())
assert np.allclose(run(decode, indices), quantizer.decode(indices).numpy())
print("torch.export and ONNX Runtime: the same indices")

# %% [markdown]
# A whole model needs none of this: in evaluation mode `torch.onnx.export(model, (x,))` and `torch.jit.trace(model,
# (x,))` write its quantizers in PyTorch's own operations.
#
# ## Where to go on
#
# - [Half precision](half-precision.md): autocast, casting, and the settings of each wrapper.
# - [Saving](../saving.md) a quantizer with its configuration; a `state_dict` under DDP and FSDP is PyTorch's as
#   always.
# - [Versions](../installing.md#what-older-releases-cannot-do): what older releases of PyTorch cannot do.
# - [Speed](../results/speed.md): what a step costs, on a CPU and on a GPU.
