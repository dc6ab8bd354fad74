"""FSDP with parameters in bfloat16: a quantizer sharded by itself keeps its codes in float32, others warn."""

import warnings

import pytest
import torch
from torch import Tensor
from torch.distributed.fsdp import (
    FullyShardedDataParallel,
    MixedPrecision,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from quantizers import QuantizerOutput
from tests.cases import CASES, Case
from tests.distributed.autoencoder import Autoencoder, shards, whole_state, write_state
from tests.distributed.ranks import Ranks, World

State = dict[str, Tensor]
ROUNDINGS = 10 * torch.finfo(torch.float32).eps  # a few, of a loss below 1


def sharded(case: Case) -> Autoencoder:
    """As a user has to: the quantizer first and without the policy, its other methods made known to FSDP."""
    torch.manual_seed(0)
    model = Autoencoder(case)
    fully_shard(model.quantizer)
    for method in ("encode", "decode"):
        register_fsdp_forward_method(model.quantizer, method)
    return fully_shard(model, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))


def in_both_modes(world: World) -> list[list[tuple[State, Tensor, QuantizerOutput, Tensor, Tensor | None]]]:
    """For each case, in training and evaluation: the state before, what went in, what came out, encode, decode."""
    with world.joined():
        return [[forward(case, world, training) for training in (True, False)] for case in CASES]


def forward(
    case: Case, world: World, training: bool
) -> tuple[State, Tensor, QuantizerOutput, Tensor, Tensor | None]:
    model = sharded(case).train(training)
    state = whole_state(model)
    seen: list[tuple[Tensor, QuantizerOutput]] = []
    model.quantizer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].detach(), output)))
    torch.manual_seed(world.rank)
    loss = model(shards(0, world.size, torch.float32)[world.rank])
    (z, output), *_ = seen
    encoded = model.quantizer.encode(z)
    decoded = model.quantizer.decode(output.indices).detach() if case.has_codes else None
    if training:
        loss.backward()
    return state, z, QuantizerOutput(*(part.detach() for part in output)), encoded, decoded


def test_a_quantizer_sharded_by_itself_is_that_of_one_process(ranks: Ranks) -> None:
    """What it gives alone, with its state in float32, for the same vectors in bfloat16.

    Bit for bit but for the loss: FSDP's parameters lie elsewhere in memory, where a matrix product that makes
    codes may sum in another order.
    """
    for rank, results in enumerate(ranks.run(2, in_both_modes)):
        for case, modes in zip(CASES, results, strict=True):
            for training, (state, z, output, encoded, decoded) in zip((True, False), modes, strict=True):
                where = f"{case}, {'training' if training else 'evaluation'}, rank {rank}"
                model = Autoencoder(case).train(training)
                write_state(model, state)
                torch.manual_seed(rank)
                expected = model.quantizer(z)
                assert z.dtype == output.quantized.dtype == torch.bfloat16, where
                for name, part, of_one in zip(output._fields, output, expected, strict=True):
                    if name != "loss":
                        assert torch.equal(part, of_one), f"{where}: {name} differs"
                    elif not (training and case.shared_losses):  # that one is of all ranks
                        assert torch.allclose(part, of_one, rtol=ROUNDINGS, atol=ROUNDINGS), (
                            f"{where}: loss differs"
                        )
                if not training:
                    assert torch.equal(encoded, output.indices), f"{where}: encode differs"
                    if decoded is not None and not case.multiplies:
                        assert decoded.dtype == torch.float32
                        assert torch.equal(decoded.bfloat16(), output.quantized), f"{where}: decode differs"


POLICIES = {
    "fully_shard": lambda model: fully_shard(model, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16)),
    "FSDP": lambda model: FullyShardedDataParallel(
        model,
        device_id=torch.device("cpu"),
        mixed_precision=MixedPrecision(param_dtype=torch.bfloat16, buffer_dtype=torch.bfloat16),
        use_orig_params=False,
    ),
}


def sharded_with_the_rest(world: World, how: str, cases: list[Case]) -> list[list[str]]:
    """What two steps of each case warn of where the quantizer has no shard of its own."""
    with world.joined():
        return [steps(case, how, world) for case in cases]


def steps(case: Case, how: str, world: World) -> list[str]:
    torch.manual_seed(0)
    model = POLICIES[how](Autoencoder(case))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for step in range(2):
            model(shards(step, world.size, torch.float32)[world.rank]).backward()
            torch.optim.SGD(model.parameters(), 0.01).step()
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("how", POLICIES)
def test_codes_that_are_rounded_are_told_once_a_quantizer(ranks: Ranks, how: str) -> None:
    """It trains, and says what to set where a policy rounds its state: parameters, and of FSDP1 buffers too."""
    cases = [case for case in CASES if how == "fully_shard" or case.foundation]
    for results in ranks.run(2, sharded_with_the_rest, how, cases):
        for case, messages in zip(cases, results, strict=True):
            quantizer = case.build()
            rounds = [*quantizer.parameters(), *(quantizer.buffers() if how == "FSDP" else ())]
            told = [message for message in messages if "its codes are rounded" in message]
            assert len(told) == any(tensor.is_floating_point() for tensor in rounds), str(case)
            for message in told:
                assert "torch.bfloat16" in message
                assert "fully_shard(model.quantizer)" in message
