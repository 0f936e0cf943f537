"""Multi-spectral channel attention (Qin et al. 2021), following the authors' code."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record

# Vertical and horizontal frequencies on a 7x7 map, as (u, v) in two digits, in the order of the authors' lists.
ORDERS = {
    "top": "00 01 60 05 02 10 12 40 50 16 30 04 06 03 35 22 46 63 33 53 55 21 61 52 54 32 31 41 23 20 65 13",
    "low": "00 01 10 11 02 20 21 12 22 03 30 40 04 13 31 05 14 23 32 41 50 06 15 24 33 42 51 60 16 25 34 43",
    "bot": "66 14 34 36 26 43 11 24 44 45 56 15 42 62 25 51 64 13 65 20 23 41 31 32 54 52 61 21 55 53 33 63",
}


class _Spectrum(nn.Module):
    def __init__(self, channel: int, dct_h: int, dct_w: int, frequencies: list[tuple[int, int]]):
        super().__init__()
        bases = [torch.outer(cosine(u * (dct_h // 7), dct_h), cosine(v * (dct_w // 7), dct_w)) for u, v in frequencies]
        weight = torch.stack(bases).repeat_interleave(channel // len(frequencies), dim=0)
        self.register_buffer("weight", weight.float())

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).sum((2, 3))


def cosine(frequency: int, length: int) -> Tensor:
    """A row of the orthonormal discrete cosine transform, type II."""
    scale = math.sqrt((2 if frequency else 1) / length)
    return scale * torch.cos(math.pi * frequency * (torch.arange(length, dtype=torch.float64) + 0.5) / length)


class MultiSpectralAttention(nn.Module):
    """Scales each channel of a map (b, c, h, w) by a gate from an MLP of one frequency of each channel."""

    def __init__(self, channel: int, dct_h: int, dct_w: int, reduction: int = 16, freq_sel_method: str = "top16"):
        super().__init__()
        self.size = (dct_h, dct_w)
        order, count = freq_sel_method[:3], int(freq_sel_method[3:])
        frequencies = [(int(pair[0]), int(pair[1])) for pair in ORDERS[order].split()[:count]]
        self.dct_layer = _Spectrum(channel, dct_h, dct_w, frequencies)
        self.fc = nn.Sequential(
            nn.Linear(channel, channel // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(channel // reduction, channel, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc(self.dct_layer(F.adaptive_avg_pool2d(x, self.size)))[:, :, None, None]
        record(self, "gate", gate)
        return x * gate
