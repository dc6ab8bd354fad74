"""Class labels of which some are dropped in training, and classifier-free guidance with them.

Ho and Salimans: Classifier-Free Diffusion Guidance, 2022 (arXiv 2207.12598).
"""

import torch
from torch import Tensor, nn

from benchmarks.errors import InputError
from benchmarks.models.checks import check_next
from quantizers.core.arguments.checks import Probability, Weight, check_as, check_at_least


class LabelEmbedding(nn.Module):
    """Embeds class labels, and a null class that stands for "no label".

    In training each label is replaced by the null class with a fixed probability, so that one model learns
    p(codes | label) and p(codes). Without classes every image has the null class.

    Args:
        classes: number of labels; None for a model without labels.
        width: channels of an embedding.
        dropout: probability that a label is dropped in training; without classes it has no effect.

    Raises: ValueError for invalid sizes or probabilities; InputError, in use, for unsuitable labels.
    """

    def __init__(self, classes: int | None, width: int, dropout: float) -> None:
        super().__init__()
        self.classes = None if classes is None else check_at_least("classes", classes, 1)
        self.dropout = check_as(Probability, "label_dropout", dropout)
        self.table = nn.Embedding((self.classes or 0) + 1, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, label: Tensor | None, batch: int) -> Tensor:
        """Embed labels [batch] int64, or None without classes: [batch, width]."""
        if self.classes is None:
            if label is not None:
                raise InputError("there are labels, expected none: the prior was built without classes")
            return self._null(batch)
        if label is None:
            raise InputError(f"there are no labels, expected one of {self.classes} classes for each image")
        check_next("labels", label, batch, self.classes)
        if self.training:
            dropped = torch.rand(batch, device=label.device) < self.dropout
            label = label.masked_fill(dropped, self.classes)
        return self.table(label)

    def for_guidance(self, label: Tensor | None, batch: int, guidance: float) -> Tensor:
        """Embed labels for `guide`: [2 · batch, width], the second half the null class; without guidance
        [batch, width].

        Raises: ValueError for a guidance below 0 or not finite; InputError for guidance that the training did not
        prepare: without classes, or with no labels dropped.
        """
        if not check_as(Weight, "guidance", guidance):
            return self(label, batch)
        if self.classes is None or not self.dropout:
            missing = "classes" if self.classes is None else "label_dropout"
            raise InputError(
                f"guidance is {guidance}, expected 0: the prior was built without {missing}, "
                "so it has not learned to predict both with and without a label"
            )
        return torch.cat([self(label, batch), self._null(batch)])

    def _null(self, batch: int) -> Tensor:
        return self.table.weight[-1].expand(batch, -1)


def guidance_at(guidance: float, step: int, steps: int) -> float:
    """Return the guidance of one of several steps, which rises linearly from 0 to `guidance`.

    The last step has all of it, also if there is only one.
    """
    return guidance * step / (steps - 1) if steps > 1 else guidance


def guide(logits: Tensor, guidance: float) -> Tensor:
    """Return (1 + guidance) · conditional − guidance · unconditional.

    Args: logits: [2B, ...], the conditional ones, then the unconditional ones.

    Returns: [B, ...].
    """
    conditional, unconditional = logits.chunk(2)
    return conditional + guidance * (conditional - unconditional)
