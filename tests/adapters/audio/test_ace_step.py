"""ACE-Step's audio tokenizer in diffusers, whose quantizer is a residual FSQ."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers import plug_in, take_codebook
from quantizers.adapters import from_pretrained
from quantizers.adapters.recognition import contract_of
from tests.adapters.common import METHODS, check_unplugs, loss_falls

ace_step = pytest.importorskip(
    "diffusers.pipelines.ace_step.modeling_ace_step", reason="the extra `models` has it"
)

LEVELS, WIDTH, LATENT, PATCH, FRAMES = (8, 5, 4), 16, 6, 5, 4
EPS = torch.finfo(torch.float32).eps
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 16,
    "audio_acoustic_hidden_dim": LATENT,
    "pool_window_size": PATCH,
    "num_attention_pooler_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def build(stages: int = 1) -> Any:
    torch.manual_seed(0)
    return ace_step.AceStepAudioTokenizer(
        **SIZES, fsq_dim=WIDTH, fsq_input_levels=list(LEVELS), fsq_input_num_quantizers=stages
    ).eval()


def original(stages: int = 1, levels: tuple[int, ...] = LEVELS) -> Any:
    torch.manual_seed(0)
    return ace_step._AceStepResidualFSQ(WIDTH, list(levels), stages)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"ace_step": lambda: original(stages=2)}


def latents() -> Tensor:
    """[2, 18, 6]: a tone in each channel, of a length that is no multiple of the patches'."""
    time = torch.arange(18)[:, None] * torch.arange(1, LATENT + 1) / 9
    return torch.stack([time.sin(), time.cos()])


def vectors(scale: float = 3.0) -> Tensor:
    return scale * torch.randn(4, 100, WIDTH, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("stages", [1, pytest.param(3, marks=pytest.mark.long)])
def test_trains_encodes_and_decodes(stages: int, name: str) -> None:
    """By the loop that the adapter's docstring gives, with the detokenizer of the pipeline."""
    model, x = build(stages), latents()
    detokenizer = ace_step.AceStepAudioTokenDetokenizer(**SIZES)
    assert plug_in(model, name) is model
    both = nn.ModuleList([model, detokenizer])

    def losses() -> tuple[Tensor, Tensor]:
        quantized, _ = model.tokenize(x)
        return F.mse_loss(detokenizer(quantized)[:, : x.shape[1]], x), model.quantizer.loss

    loss_falls(both, losses, rate=1e-2)
    model.eval()
    quantized, indices = model.tokenize(x)
    assert quantized.shape == (2, FRAMES, WIDTH)
    assert indices.shape == (2, FRAMES, stages)
    assert indices.max() < model.quantizer.codebook_size
    torch.testing.assert_close(model.quantizer.get_output_from_indices(indices), quantized)
    by_stage = model.quantizer.get_codes_from_indices(indices)
    assert by_stage.shape[:3] == (stages, 2, FRAMES)


@pytest.mark.parametrize("levels", [LEVELS, (8, 8, 8, 5, 5, 5), (2, 3)], ids=str)
@pytest.mark.parametrize("stages", [1, 3])
def test_kept_codebook_gives_what_the_original_gave(stages: int, levels: tuple[int, ...]) -> None:
    """In each stage indices are the same where those of the stages before are, and no channel is within rounding
    of the edge between two levels; values up to the rounding of sums and the projection out."""
    module = original(stages, levels)
    assert contract_of(module).contract == "ace_step"
    model = plug_in(nn.Sequential(copy.deepcopy(module)), "fsq", keep_codebook=True)
    x = vectors()
    (new, found), (reference, indices) = model(x), module(x)
    same = torch.ones(x.shape[:2], dtype=torch.bool)
    for stage, clear in enumerate(clear_stages(module, x)):
        agree = (found == indices)[..., stage]
        assert agree[same & clear].all()
        assert clear.float().mean() > 0.9
        same &= agree
    assert same.float().mean() > 0.9
    weight = module.project_out.weight.abs()
    terms = 2 * stages + len(levels) + 3  # of codes that add up to at most 2
    bound = terms * EPS * 2 * (weight.sum(-1) + module.project_out.bias.abs())
    assert ((new - reference).abs() <= bound)[same].all()
    adapter: Any = model[0]
    error = adapter.get_output_from_indices(indices) - module.get_output_from_indices(indices)
    assert (error.abs() <= bound).all()
    codes = module.get_codes_from_indices(indices)
    assert adapter.get_codes_from_indices(indices).shape == codes.shape
    # A value is 2 digit / (L − 1) − 1 with three roundings; a scale is L⁻ⁱ, or the exponential of its logarithm.
    relative = 4 + 2 * stages * torch.tensor(levels).log()
    assert ((adapter.get_codes_from_indices(indices) - codes).abs() <= relative * EPS).all()
    assert adapter.codebook_size == module.codebook_size


def clear_stages(module: Any, x: Tensor) -> list[Tensor]:
    """For each stage of the original which vectors [...] have each channel farther from an edge between two levels
    than rounding may carry it: what the projection's dot product of D terms rounds, and some roundings of numbers
    of at most 2, both on the scale of the stage."""
    levels = module._levels.double()
    z = F.linear(x.double(), module.project_in.weight.double(), module.project_in.bias.double())
    size = x.abs() @ module.project_in.weight.abs().T + module.project_in.bias.abs()
    edge = levels / (levels - 1)
    residual, found = edge * torch.tanh(z / edge), []
    for scale in module.scales.double():
        position = (levels - 1) * ((residual / scale).clamp(-1, 1) + 1) / 2
        off = ((position - 0.5) - (position - 0.5).round()).abs()
        found.append((off > EPS * levels / scale * (16 + (WIDTH + 2) * size)).all(-1))
        value = (2 * (position + 0.5).floor() / (levels - 1) - 1) * scale
        residual = residual - value
    return found


def test_a_tokenizer_keeps_its_codes() -> None:
    model, x = build(), latents()
    reference, indices = model.tokenize(x)
    codebook = take_codebook(model)
    plug_in(model, "fsq", keep_codebook=True)
    assert torch.equal(take_codebook(model), codebook)
    quantized, found = model.tokenize(x)
    assert torch.equal(found, indices)  # none is at an edge
    torch.testing.assert_close(quantized, reference)


def test_a_kept_codebook_is_trained_straight_through_its_rounding() -> None:
    """The original's rounding has no gradient. Here it is that of the vectors before the rounding: the first
    stage's, as what it leaves does not depend on them."""
    module = original(stages=2)
    kept = plug_in(nn.Sequential(copy.deepcopy(module)), "fsq", keep_codebook=True)
    x, weight = vectors(0.3).requires_grad_(), vectors(1.0)
    (kept(x)[0] * weight).sum().backward()
    own = x.grad.clone()
    z = F.linear(x, module.project_in.weight, module.project_in.bias)
    edge = module._levels / (module._levels - 1)
    bounded = (edge * torch.tanh(z / edge)).clamp(-1, 1)
    (expected,) = torch.autograd.grad((F.linear(bounded, module.project_out.weight) * weight).sum(), x)
    torch.testing.assert_close(own, expected)
    assert own.any()


def test_indices_without_an_axis_for_stages_are_of_one() -> None:
    module = original()
    adapter = plug_in(nn.Sequential(copy.deepcopy(module)), "fsq", keep_codebook=True)[0]
    indices = module(vectors())[1][..., 0]
    for method in ("get_output_from_indices", "get_codes_from_indices"):
        torch.testing.assert_close(getattr(adapter, method)(indices), getattr(module, method)(indices))


def test_a_residual_quantizer_of_more_stages_decodes_the_first() -> None:
    """A pipeline makes as many columns of indices as the configuration counts, one."""
    adapter = plug_in(build(), "vq", num_quantizers=3).quantizer
    assert adapter.codebook_size == 160
    assert adapter.get_output_from_indices(torch.zeros(2, FRAMES, 1, dtype=torch.long)).shape == (2, FRAMES, WIDTH)


@pytest.mark.parametrize(("name", "keep"), [("fsq", True), ("fsq", False), ("vq", False)])
def test_a_plugged_tokenizer_comes_back(name: str, keep: bool, tmp_path: Path) -> None:
    model = plug_in(build(2), name, keep_codebook=keep).eval()
    model.save_pretrained(tmp_path)
    loaded = from_pretrained(type(model), tmp_path)
    for own, other in zip(loaded.tokenize(latents()), model.tokenize(latents()), strict=True):
        assert torch.equal(own, other)


def test_a_kept_codebook_is_one_graph() -> None:
    adapter = plug_in(build(2), "fsq", keep_codebook=True).quantizer
    compiled = torch.compile(adapter, fullgraph=True, backend="eager")
    assert torch.equal(compiled(vectors())[1], adapter(vectors())[1])


def test_what_cannot_be_kept_is_a_sentence() -> None:
    kept = r"codes to keep are 2 stages of 'fsq' with levels=\(8, 5, 4\) and symmetric=True"
    for name, options in (("vq", {}), ("fsq", {"levels": (5, 5, 5)}), ("residual_fsq", {}), ("qinco", {})):
        with pytest.raises(ValueError, match=kept):
            plug_in(build(2), name, keep_codebook=True, **options)
    with pytest.raises(ValueError, match="got 2 scales for 3 stages"):
        plug_in(build(2), "fsq", keep_codebook=True, num_quantizers=3)
    module = original(levels=(3, 3))
    module.project_in, module.project_out = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(ValueError, match="projects 2 channels to as many, which keep_codebook does not support"):
        plug_in(nn.Sequential(module), "fsq", keep_codebook=True)


def test_half_precision_is_the_models() -> None:
    adapter = plug_in(build(), "fsq", keep_codebook=True).bfloat16().quantizer
    quantized, indices = adapter(vectors().bfloat16())
    assert quantized.dtype == torch.bfloat16
    assert adapter.get_output_from_indices(indices).dtype == torch.bfloat16


def test_unplug_puts_back_what_stood_there() -> None:
    model = build()
    check_unplugs(model, "quantizer", lambda: model.tokenize(latents())[0])
