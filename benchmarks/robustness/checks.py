"""The list of checks: a function for each, and the words that describe it in reports.

A function receives a freshly built subject and returns a number or a word. It raises NotApplicableError if the
subject lacks the checked feature; any other exception counts as a result. All subjects with the same number of
channels get the same data.
"""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.robustness import garbage, training, values
from benchmarks.robustness.subjects import Subject

Value = float | str


@dataclass(frozen=True)
class Check:
    """A check of a quantizer.

    key    in the JSON
    title  in the table, with its unit
    does   what the check does, in one sentence
    note   on the peer, usually how to avoid the failure
    """

    key: str
    title: str
    does: str
    run: Callable[[Subject], Value]
    note: str = ""


CHECKS = (
    Check(
        "nan_vector",
        "one NaN vector: codes lost, %",
        "The share of codes that are not finite after a training step on 256 vectors, one of which is NaN.",
        garbage.nan_vector,
    ),
    Check(
        "nan_loss",
        "one NaN vector: loss finite",
        "Whether the loss of the same batch is finite in training.",
        garbage.nan_loss,
    ),
    Check(
        "nan_padding",
        "NaN under the mask: codes lost, %",
        "The share of lost codes after the same step with the NaN vector masked out.",
        garbage.nan_padding,
        "The peer keeps its codes if the padding is overwritten with zeros first.",
    ),
    Check(
        "all_masked_loss",
        "all masked: loss",
        "The loss of a training forward with a mask that is False everywhere.",
        garbage.all_masked_loss,
    ),
    Check(
        "all_masked_state",
        "all masked: state change, %",
        "The change of the module's state in the same forward: norm of the change over the norm, for the tensor "
        "that changes most.",
        garbage.all_masked_state,
    ),
    Check(
        "empty_batch_loss",
        "no vectors: loss",
        "The loss of a training forward on [1, 0, D].",
        garbage.empty_batch_loss,
    ),
    Check(
        "empty_batch_state",
        "no vectors: state change, %",
        "The change of state in the same forward, measured as above.",
        garbage.empty_batch_state,
    ),
    Check(
        "decode_in_training",
        "decode − quantized, training",
        "The largest difference between the output of forward and the output of decode for its indices, with the "
        "codes that forward used. The data are 2048 vectors from N(0, 1); the first K are the codes.",
        values.decode_in_training,
    ),
    Check(
        "decode_in_evaluation",
        "decode − quantized, evaluation",
        "The same difference in evaluation mode.",
        values.decode_in_evaluation,
    ),
    Check(
        "decode_in_bfloat16",
        "decode − quantized, bfloat16",
        "The same difference in training with module and input in bfloat16 and decode's output cast to bfloat16.",
        values.decode_in_bfloat16,
    ),
    Check(
        "decode_of_zeros",
        "decode − quantized, zero vectors",
        "The same difference in training for vectors of zeros, in float32.",
        values.decode_of_zeros,
        "The peer's rotation_trick=False avoids it; True is the default of its VectorQuantize and SimVQ.",
    ),
    Check(
        "decode_minus_one",
        "decode of −1",
        "The output of decode for −1, which is the index of a masked vector, also in the peer's VectorQuantize.",
        values.decode_minus_one,
    ),
    Check(
        "decode_too_large",
        "decode of K",
        "The output of decode for the smallest invalid index.",
        values.decode_too_large,
    ),
    Check(
        "wrong_at_100",
        "wrong indices, mean 100, %",
        "The share of indices in evaluation whose code is not the nearest in float64. The data are 2048 vectors "
        "from N(100, 1); the first K are the codes.",
        values.wrong_at_100,
        "The peer needs a mean that is subtracted before.",
    ),
    Check(
        "wrong_at_1000",
        "wrong indices, mean 1000, %",
        "The same share with vectors from N(1000, 1).",
        values.wrong_at_1000,
        "The peer needs a mean that is subtracted before.",
    ),
    Check(
        "one_at_a_time",
        "batch-dependent indices, mean 100, %",
        "The share of 256 vectors from N(100, 1) whose index differs between a batch of 1 and a batch of 2048.",
        values.one_at_a_time,
        "The peer needs a mean that is subtracted before.",
    ),
    Check(
        "autocast",
        "different indices under autocast, %",
        "The share of float32 vectors whose index differs with and without CPU autocast to bfloat16, in "
        "evaluation.",
        values.autocast,
        "The peer's VectorQuantize and FSQ switch off CUDA's autocast, but not the CPU's.",
    ),
    Check(
        "half_state",
        "50 steps in bfloat16: codes off, %",
        "The deviation of the codes after 50 training forwards with module and input in bfloat16 from those of "
        "the module in float32 on the same values: norm of the difference over the norm of the codes' total "
        "movement.",
        values.half_state,
        "The peer avoids it if the module stays in float32.",
    ),
    Check(
        "half_loss",
        "float16, ±300: loss finite",
        "Whether the loss is finite in a training forward with module and input in float16, every element 300 "
        "or −300.",
        values.half_loss,
        "The peer avoids it with module and input in float32.",
    ),
    Check(
        "graph_breaks",
        "graph breaks",
        "The number of graph breaks that torch._dynamo.explain reports for a training forward.",
        training.graph_breaks,
    ),
    Check(
        "one_graph",
        "compiles as one graph",
        'Whether a training forward and backward run under torch.compile(fullgraph=True, backend="aot_eager").',
        training.one_graph,
    ),
    Check(
        "export",
        "exports",
        "Whether torch.export.export of forward in evaluation with a dynamic batch axis, run at another batch "
        "size, returns the module's indices.",
        training.export,
        "The peer's SimVQ exports with a fixed batch.",
    ),
    Check(
        "recomputed_state",
        "checkpointing: state off, %",
        "The difference of state between a step under torch.utils.checkpoint (non-reentrant) and a plain step, "
        "measured as above.",
        training.recomputed_state,
    ),
    Check(
        "recomputed_gradient",
        "checkpointing: gradient off by",
        "The largest difference between the input gradients of the same two steps.",
        training.recomputed_gradient,
    ),
    Check(
        "evaluation_state",
        "evaluation: state change, %",
        "The change of state in a forward in evaluation after a training step, measured as above.",
        training.evaluation_state,
    ),
    Check(
        "codebook_that_was_set",
        "codebook set: change in a step, %",
        "The change of codes that were set (set_codebook, the peer's codebook setter) to values from N(0, 1), "
        "in a training step on two copies of each code: norm of the change over the norm of the codes.",
        training.codebook_that_was_set,
        "The peer keeps codes that it loads from a state_dict with embed_avg and cluster_size.",
    ),
    Check(
        "largest_tensor",
        "largest tensor, bytes per N·K",
        "The largest allocation in a training step on N = 2048 vectors, measured by torch's profiler.",
        training.largest_tensor,
    ),
    Check(
        "deep_copy",
        "deepcopy trains identically",
        "Whether a copy.deepcopy made after a training step and its original do another step on the same data "
        "with equal results.",
        training.deep_copy,
    ),
    Check("pickled", "pickle trains identically", "The same for a copy made with pickle.", training.pickled),
)
