"""Attention in windows, shifted or not (Liu et al. 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record
from ..masks import apply_mask


def relative_position_index(height: int, width: int) -> Tensor:
    """The row of the table for each query and key of a window, (n, n)."""
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    down, right = (places[:, None] - places[None]).unbind(-1)
    return (down + height - 1) * (2 * width - 1) + right + width - 1


class _Windowed(nn.Module):
    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None,
        window_size: tuple[int, int],
        qkv_bias: bool,
        attn_drop: float,
        proj_drop: float,
    ):
        super().__init__()
        head_dim = head_dim or dim // num_heads
        self.num_heads, self.head_dim, self.window_size = num_heads, head_dim, window_size
        height, width = window_size
        self.relative_position_bias_table = nn.Parameter(
            0.02 * torch.randn((2 * height - 1) * (2 * width - 1), num_heads)
        )
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(num_heads * head_dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def attend(self, x: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        """Windows (b, n, dim), mask and bias (windows, n, n) -> (b, n, dim)."""
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) * self.head_dim**-0.5
        scores = scores + self.relative_position_bias_table[self.relative_position_index.view(n, n)].permute(2, 0, 1)
        mask, bias = (None if a is None else a.repeat(b // len(a), 1, 1).unsqueeze(1) for a in (mask, bias))
        weights = self.attn_drop(torch.softmax(apply_mask(scores, mask, bias), dim=-1))
        record(self, "weights", weights)
        out: Tensor = self.proj_drop(self.proj((weights @ v).transpose(1, 2).reshape(b, n, -1)))
        return out


class WindowAttention(_Windowed):
    """Windows (b * windows, n, dim) -> (b * windows, n, dim), with a bias for each relative position."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        window_size: int | tuple[int, int] = 7,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ):
        height, width = window_size if isinstance(window_size, tuple) else (window_size, window_size)
        super().__init__(dim, num_heads, head_dim, (height, width), qkv_bias, attn_drop, proj_drop)
        self.register_buffer("relative_position_index", relative_position_index(height, width), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return self.attend(x, mask, bias)


class ShiftedWindowAttention(_Windowed):
    """Map (b, dim, h, w) -> (b, dim, h, w): attention in the windows of the shifted map."""

    def __init__(
        self,
        dim: int,
        window_size: tuple[int, int],
        shift_size: tuple[int, int],
        num_heads: int,
        qkv_bias: bool = True,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
    ):
        super().__init__(dim, num_heads, None, window_size, qkv_bias, attention_dropout, dropout)
        self.shift_size = shift_size
        self.register_buffer("relative_position_index", relative_position_index(*window_size).flatten())

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        wh, ww = self.window_size
        x = F.pad(x, (0, -w % ww, 0, -h % wh))
        rows, columns = x.size(2) // wh, x.size(3) // ww
        down, right = (s if count > 1 else 0 for s, count in zip(self.shift_size, (rows, columns), strict=True))
        x = x.roll((-down, -right), (2, 3))
        x = x.view(b, c, rows, wh, columns, ww).permute(0, 2, 4, 3, 5, 1).reshape(-1, wh * ww, c)
        out = self.attend(x, None, self.bias_of_parts(rows, columns, down, right).to(x))
        out = out.view(b, rows, columns, wh, ww, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, rows * wh, columns * ww)
        return out.roll((down, right), (2, 3))[:, :, :h, :w]

    def bias_of_parts(self, rows: int, columns: int, down: int, right: int) -> Tensor:
        """-100 between places of the last windows that the shift brought together, (windows, n, n)."""
        wh, ww = self.window_size
        part = torch.zeros(rows * wh, columns * ww)
        part[rows * wh - down :] += 1
        part[:, columns * ww - right :] += 2
        part = part.view(rows, wh, columns, ww).transpose(1, 2).reshape(rows * columns, wh * ww)
        return -100.0 * (part[:, :, None] != part[:, None])
