"""The Lightning callback of docs/monitoring.md, run by a Trainer."""

import logging
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import quantizers
from quantizers import watch

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"
NAMES = ("utilization", "perplexity", "entropy", "dead_codes", "vectors", "possible")


def callback_of_the_page(lightning: Any) -> Any:
    """An instance of the callback class in docs/monitoring.md."""
    (source,) = re.findall(
        r"^(?P<indent> *)(class CodebookUsageLogger\(.*\n(?:(?:(?P=indent) +\S.*)?\n)+)", PAGE.read_text(), re.M
    )
    names = {"lightning": lightning, "watch": watch}
    exec(compile(textwrap.dedent(source[0] + source[1]), str(PAGE), "exec"), names)
    return names["CodebookUsageLogger"]()


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")  # Lightning's
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")  # advice on speed
def test_the_callback_of_the_readme_logs_each_epoch(tmp_path: Path) -> None:
    """Training and validation are counted separately, from zero in each epoch, and no hook is left at the end."""
    lightning = pytest.importorskip("lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Autoencoder(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(6, 4)
            self.quantizer = quantizers.create("residual", dim=4, codebook_size=8, num_quantizers=2)

        def training_step(self, batch: list[Tensor], number: int) -> Tensor:
            quantized, _, loss = self.quantizer(self.encoder(batch[0]))
            return quantized.square().mean() + loss

        def validation_step(self, batch: list[Tensor], number: int) -> None:
            self.quantizer(self.encoder(batch[0]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    data, one = TensorDataset(torch.randn(64, 6), torch.arange(64)), TensorDataset(torch.ones(16, 6))
    callback, model = callback_of_the_page(lightning), Autoencoder()
    trainer = lightning.Trainer(
        max_epochs=2,
        log_every_n_steps=1,
        accelerator="cpu",
        callbacks=[callback],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=16), DataLoader(one, batch_size=16))
    expected = {f"{phase}/quantizer/{n}/{name}" for phase in ("train", "val") for n in (0, 1) for name in NAMES}
    assert expected <= trainer.callback_metrics.keys()
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["val/quantizer/0/dead_codes"] == 7, "all vectors of the validation are equal"
    assert metrics["train/quantizer/0/dead_codes"] < 7
    for phase, count in (("training", 64), ("validation", 16)):
        usage = getattr(callback, phase).usage["quantizer"]
        assert [int(counts.sum()) for counts in usage.counts] == [count, count], (
            "the counts are those of the last epoch alone"
        )
    assert model.quantizer._code_hooks == ()
