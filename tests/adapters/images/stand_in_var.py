"""A stand-in for the quantizer of VAR, written after what it computes, its calls and its parameters."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Sizes = Sequence[int | tuple[int, int]]


class Phi(nn.Conv2d):
    """(1 − r) · h + r · (h convolved with kernels of 3 × 3), for |quant_resi| = r."""

    def __init__(self, channels: int, quant_resi: float) -> None:
        super().__init__(channels, channels, 3, padding=1)
        self.resi_ratio = abs(quant_resi)

    def forward(self, h: Tensor) -> Tensor:
        return torch.lerp(h, super().forward(h), self.resi_ratio)


def nearest_tick(count: int, at: float) -> int:
    """Which of `count` modules serves the scale at a place between 0, the coarsest, and 1, the finest.

    At a place between two ticks rounding decides, as with numpy.linspace, which this equals.
    """
    margin = 1 / 3 / count if count == 4 else 1 / 2 / count
    step = (1 - margin - margin) / max(count - 1, 1)
    ticks = [margin + step * position for position in range(count)]
    ticks[-1] = 1 - margin if count > 1 else margin
    return min(range(count), key=lambda position: abs(ticks[position] - at))


class One(nn.Module):
    """One φ for all scales."""

    def __init__(self, phi: nn.Module) -> None:
        super().__init__()
        self.qresi = phi

    def __getitem__(self, at: float) -> nn.Module:
        return self.qresi


class Few(nn.Module):
    """A few φ that scales share."""

    def __init__(self, phis: Sequence[nn.Module]) -> None:
        super().__init__()
        self.qresi_ls = nn.ModuleList(phis)

    def __getitem__(self, at: float) -> nn.Module:
        return self.qresi_ls[nearest_tick(len(self.qresi_ls), at)]


class Each(nn.ModuleList):
    """One φ for each scale."""

    def __getitem__(self, at: Any) -> Any:
        return super().__getitem__(nearest_tick(len(self), at))


class VectorQuantizer2(nn.Module):
    """f [B, C, H, W] → (f_hat, percentages of used codes or None, loss []); H = W = the last of v_patch_nums.

    The published forward needs an initialized process group; this one takes it as a group of one process.
    """

    def __init__(
        self,
        vocab_size: int,
        Cvae: int,
        using_znorm: bool,
        beta: float = 0.25,
        default_qresi_counts: int = 0,
        v_patch_nums: Sequence[int] = (),
        quant_resi: float = 0.5,
        share_quant_resi: int = 4,
    ) -> None:
        super().__init__()
        self.vocab_size, self.Cvae, self.using_znorm, self.beta = vocab_size, Cvae, using_znorm, beta
        self.v_patch_nums = tuple(v_patch_nums)
        self.quant_resi_ratio = quant_resi

        def phi() -> nn.Module:
            return Phi(Cvae, quant_resi) if abs(quant_resi) > 1e-6 else nn.Identity()

        count = share_quant_resi or default_qresi_counts or len(self.v_patch_nums)
        holder = {0: Each, 1: lambda phis: One(*phis)}.get(share_quant_resi, Few)
        self.quant_resi = holder([phi() for _ in range(count)])
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(len(self.v_patch_nums), vocab_size))
        self.record_hit = 0
        self.embedding = nn.Embedding(vocab_size, Cvae)
        self.prog_si = -1

    def eini(self, eini: float) -> None:
        nn.init.normal_(self.embedding.weight, std=eini)

    def forward(self, f_BChw: Tensor, ret_usages: bool = False) -> tuple[Tensor, list[float] | None, Tensor]:
        f = f_BChw.float()
        losses = []
        for _, _, f_hat in self._scales(f.detach(), self.v_patch_nums):
            to_codes, to_f = (f_hat.detach() - f).square(), (f_hat - f.detach()).square()
            losses.append(self.beta * to_codes.mean() + to_f.mean())
        usages = None
        if ret_usages:
            least = 0.08 * f[:, 0].numel() / self.vocab_size
            usages = [100 * (hits >= least).float().mean().item() for hits in self.ema_vocab_hit_SV]
        return f + (f_hat - f).detach(), usages, torch.stack(losses).mean()

    def f_to_idxBl_or_fhat(self, f_BChw: Tensor, to_fhat: bool, v_patch_nums: Sizes | None = None) -> list[Tensor]:
        sizes = v_patch_nums or self.v_patch_nums
        assert _pair(sizes[-1]) == tuple(f_BChw.shape[2:])
        found = []
        for position, indices, f_hat in self._scales(f_BChw.detach(), sizes):
            if 0 <= self.prog_si < position:
                break
            found.append(f_hat.detach() if to_fhat else indices)
        return found

    def embed_to_fhat(
        self, ms_h_BChw: list[Tensor], all_to_max_scale: bool = True, last_one: bool = False
    ) -> list[Tensor] | Tensor:
        count, full, sums = len(self.v_patch_nums), self.v_patch_nums[-1], []
        f_hat = torch.zeros(len(ms_h_BChw[0]), self.Cvae, 1, 1)
        for position, (h, side) in enumerate(zip(ms_h_BChw, self.v_patch_nums, strict=True)):
            f_hat = _resized(f_hat, (full, full) if all_to_max_scale else (side, side)) if position else f_hat
            grown = _resized(h, (full, full)) if all_to_max_scale else h
            f_hat = f_hat + self.quant_resi[position / (count - 1)](grown)
            sums.append(f_hat)
        return sums[-1] if last_one else sums

    def idxBl_to_var_input(self, gt_ms_idx_Bl: list[Tensor]) -> Tensor | None:
        full, inputs = self.v_patch_nums[-1], []
        steps = len(self.v_patch_nums) - 1 if self.prog_si < 0 else self.prog_si
        f_hat = torch.zeros(len(gt_ms_idx_Bl[0]), self.Cvae, full, full)
        for position in range(steps):
            side, after = self.v_patch_nums[position : position + 2]
            h = self.embedding(gt_ms_idx_Bl[position]).mT.unflatten(2, (side, side))
            at = position / (len(self.v_patch_nums) - 1)
            f_hat = f_hat + self.quant_resi[at](_resized(h, (full, full)))
            inputs.append(functional.interpolate(f_hat, size=(after, after), mode="area").flatten(2).mT)
        return torch.cat(inputs, 1) if inputs else None

    def get_next_autoregressive_input(
        self, si: int, SN: int, f_hat: Tensor, h_BChw: Tensor
    ) -> tuple[Tensor, Tensor]:
        full = self.v_patch_nums[-1]
        f_hat += self.quant_resi[si / (SN - 1)](_resized(h_BChw, (full, full)))
        if si == SN - 1:
            return f_hat, f_hat
        after = self.v_patch_nums[si + 1]
        return f_hat, functional.interpolate(f_hat, size=(after, after), mode="area")

    def _scales(self, f: Tensor, sizes: Sizes) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each scale's position, indices [B, l] and f_hat [B, C, H, W], which has gradients of codes and φ."""
        f_hat = torch.zeros_like(f)
        for position, size in enumerate(sizes):
            rest = functional.interpolate(f - f_hat.detach(), size=_pair(size), mode="area")
            indices = self._search(rest.movedim(1, -1))
            grown = _resized(self.embedding(indices).movedim(-1, 1), f.shape[2:])
            f_hat = f_hat + self.quant_resi[position / (len(sizes) - 1)](grown)
            yield position, indices.flatten(1), f_hat

    def _search(self, vectors: Tensor) -> Tensor:
        codes = self.embedding.weight.detach()
        if self.using_znorm:
            return (functional.normalize(vectors, dim=-1) @ functional.normalize(codes, dim=-1).mT).argmax(-1)
        return (codes.square().sum(-1) - 2 * vectors @ codes.mT).argmin(-1)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _resized(h: Tensor, size: Sequence[int]) -> Tensor:
    """Cubic interpolation; a map of that size stays as it is."""
    if h.shape[2:] == tuple(size):
        return h
    return functional.interpolate(h, size=tuple(size), mode="bicubic")
