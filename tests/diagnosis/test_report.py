"""The report as text, data, HTML and a figure, and what it measures of quantizers of each kind."""

import json
import math
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import quantizers
from quantizers import VectorQuantizer, diagnose
from quantizers.diagnosis import Diagnosis
from tests.cases import DIM, Case, batch, cases_where, every_method
from tests.diagnosis.models import held_out, loss_of, trained
from tests.diagnosis.vectors import drawn


@pytest.fixture(scope="module")
def report() -> Diagnosis:
    """Of an untrained autoencoder with three quantizers, in which much is wrong."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "a_long_name_that_fills_the_table": quantizers.create("residual", 4, codebook_size=300),
            "grid": quantizers.FSQ(4, (5, 5, 5, 5)),
            "bits": quantizers.create("lfq", 40, 2**40),
        }
    )
    wide = nn.Linear(4, 40)

    def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        first, second, third = model.values()
        outputs = [first(1000 * x), second(50 + x), third(wide(x))]
        return sum(out.quantized.square().mean() + out.loss for out in outputs)  # type: ignore[return-value]

    return diagnose(model, [drawn(600, 4, seed) for seed in range(3)], loss=loss)


def test_it_fits_a_hundred_columns(report: Diagnosis) -> None:
    """Lines of code are shown whole, and fit all the same; each finding has its sentence, remedy and link."""
    text = str(report)
    assert max(map(len, text.splitlines())) <= 100
    flat = " ".join(text.split())
    assert report.findings
    for finding in report.findings:
        for part in (finding.meaning, finding.remedy, finding.code, f"See docs/troubleshooting.md#{finding.kind}"):
            assert " ".join(part.split()) in flat
    assert "2^40" in text
    assert "…" in text
    order = [("problem", "warning", "note").index(finding.severity) for finding in report.findings]
    assert order == sorted(order)
    assert repr(report) == f"<Diagnosis of 7 parts in 3 batches: {len(report.findings)} findings>"


def test_parts_with_the_same_finding_share_one(report: Diagnosis) -> None:
    (finding,) = [each for each in report.findings if each.kind == "stages-that-add-nothing"]
    assert finding.also
    assert "The same holds for" in str(report)


def test_its_data_are_json(report: Diagnosis) -> None:
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [each["part"] for each in data["measures"]] == ["", "stage 0", "stage 1", "stage 2", "stage 3", "", ""]
    assert data["batches"] == 3
    grid = data["measures"][5]
    assert [sum(channel) for channel in grid["levels"]] == [1800] * 4
    assert set(grid["gradients"]) == {"with_quantizer", "without", "cosine"}
    kinds = {finding["kind"] for finding in data["findings"]}
    assert {"gradients-that-vanish", "saturated-channels", "stages-that-add-nothing"} <= kinds
    assert all(finding["link"] == f"troubleshooting.md#{finding['kind']}" for finding in data["findings"])


def test_jupyter_shows_it(report: Diagnosis) -> None:
    text = report._repr_html_()
    assert text.count("<tr>") == 1 + len(report.measures)
    assert text.count("<li>") == len(report.findings)


def test_nothing_wrong_is_said() -> None:
    model = trained(quantizers.create("ema_vq", 8, codebook_size=32, channel_dim=1), steps=60, replaces=True)
    quantizers.warm_start(model, held_out())
    report = diagnose(model, held_out(), loss=loss_of)
    assert report.findings == ()
    assert str(report).endswith("Nothing is wrong that this diagnosis can see.")
    assert report.no_gradients == ""


def test_its_figure_has_a_row_for_each_part_with_codes(report: Diagnosis) -> None:
    figure = report.plot()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title for title in titles if title.startswith("model.")] == [
        each.label for each in report.measures if each.part or each.levels
    ]
    assert any(re.fullmatch(r"\d+ of 300 codes in use", title) for title in titles)
    assert titles.count("share of the vectors on each level (%)") == 2
    assert len(report.plot(max_rows=2).axes) < len(figure.axes)
    figure.canvas.draw()


def test_without_matplotlib_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['matplotlib.axes'] = None\n"
        "import torch, quantizers\n"
        "report = quantizers.diagnose(quantizers.VectorQuantizer(2, 4), [torch.randn(40, 2)])\n"
        "print(report)\n"
        "try:\n    report.plot()\nexcept ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Diagnosis.plot needs matplotlib: pip install 'quantizers-torch[cli]'" in done.stdout


@pytest.mark.methods
@cases_where(lambda case: case.has_codes)
def test_counts_are_those_of_the_indices(case: Case) -> None:
    """Of each codebook, and the error of what has a value that approximates its input."""
    quantizer, x = case.build().eval(), batch(80)
    report = diagnose(quantizer, [x[:50], x[50:]])
    indices = quantizer.encode(x)
    columns = indices.unbind(-1) if quantizer.composed else [indices]
    found = [each for each in report.measures if each.codebook_size is not None and "shared" not in each.part]
    assert [each.codes_in_use for each in found] == [len(column[column >= 0].unique()) for column in columns]
    assert [each.codebook_size for each in found] == list(quantizer.codebook_sizes)
    assert report.measures[0].bits == pytest.approx(sum(map(math.log2, quantizer.codebook_sizes)))
    for each in report.measures:
        if each.codes_in_use is not None and each.codebook_size is not None:
            assert each.dead_codes == each.codebook_size - each.codes_in_use


@every_method
def test_the_error_is_that_of_the_output(case: Case) -> None:
    """Where codes lie in the space of the input."""
    quantizer, x = case.build().eval(), batch(80)
    if case.name not in ("vq", "ema_vq", "simvq", "residual", "grouped", "multihead", "qinco", "opq", "parallel"):
        return
    (lost,) = [each.lost for each in diagnose(quantizer, [x]).measures if not each.part]
    error = (x - quantizer(x).quantized).square().sum() / (x - x.mean(0)).square().sum()
    assert lost == pytest.approx(float(error), rel=1e-5)


def test_of_maps_scales_and_the_whole_are_measured() -> None:
    quantizer = quantizers.create("multiscale", DIM, codebook_size=8, scales=(0.5, 1), axes=2).eval()
    x = batch(3, 8, 8)
    whole, coarse, fine, shared = diagnose(quantizer, [x]).measures
    error = (x - quantizer(x).quantized).square().sum() / (x - x.mean((0, 1, 2))).square().sum()
    assert whole.lost == pytest.approx(float(error), rel=1e-5)
    assert whole.bits == pytest.approx(3 * (16 + 64) / 64)
    assert (coarse.part, coarse.vectors) == ("scale 0 (1/2)", 3 * 16)
    assert (fine.part, fine.vectors) == ("scale 1 (1)", 3 * 64)
    assert (shared.part, shared.vectors) == ("shared codebook", 3 * 80)


@pytest.mark.parametrize("options", [{"distance": "cosine"}, {"distance": "angle"}, {"code_dim": 2}])
def test_spreads_are_those_of_the_space_that_is_searched(options: dict[str, Any]) -> None:
    quantizer, x = VectorQuantizer(DIM, 16, **options).requires_grad_(False), batch(100)
    (measures,) = diagnose(quantizer, [x]).measures
    vectors, codes = quantizer._compared(quantizer.project_in(x))
    for each, spread, norm in (
        (vectors[0], measures.vector_spread, measures.vector_norm),
        (codes[0], measures.code_spread, measures.code_norm),
    ):
        assert spread == pytest.approx(float((each - each.mean(0)).square().sum(-1).mean().sqrt()), rel=1e-5)
        assert norm == pytest.approx(float(each.square().sum(-1).mean().sqrt()), rel=1e-5)
    distance = float((vectors[0].mean(0) - codes[0].mean(0)).norm())
    assert measures.offset == pytest.approx(distance / measures.vector_spread, rel=1e-5)


def test_a_large_offset_costs_no_digits() -> None:
    """Of float64: the spread of float32 vectors at 10⁶ is that of the same vectors at their mean."""
    x = (drawn(300, DIM) + 1e6).double()
    (measures,) = diagnose(VectorQuantizer(DIM, 8).double(), [x[:100], x[100:]]).measures
    assert measures.vector_spread == pytest.approx(float((x - x.mean(0)).square().sum(-1).mean().sqrt()), rel=1e-9)
