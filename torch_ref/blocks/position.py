"""2D position encodings (Carion et al. 2020), added to maps (b, c, h, w)."""

import torch
from torch import Tensor, nn


class SinePositionEncoding2d(nn.Module):
    """Alternating sines and cosines, the first half of the channels for the row, the second for the column."""

    def __init__(self, channels: int, temperature: float = 10000):
        super().__init__()
        self.channels = channels
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        rows = self.encode(x.size(2)).T[:, :, None].expand(-1, -1, x.size(3))
        columns = self.encode(x.size(3)).T[:, None, :].expand(-1, x.size(2), -1)
        return x + torch.cat([rows, columns]).to(x)

    def encode(self, length: int) -> Tensor:
        """Encodes one axis, (length, channels / 2)."""
        half = self.channels // 2
        wavelengths = self.temperature ** (torch.arange(0, half, 2, dtype=torch.float64) / half)
        encoding = torch.zeros(length, half, dtype=torch.float64)
        for position in range(length):
            encoding[position, 0::2] = torch.sin(position / wavelengths)
            encoding[position, 1::2] = torch.cos(position / wavelengths)
        return encoding


class LearnedPositionEncoding2d(nn.Module):
    """Learned embeddings, the first half of the channels for the row, the second for the column."""

    def __init__(self, height: int, width: int, channels: int):
        super().__init__()
        self.row_embed = nn.Embedding(height, channels // 2)
        self.col_embed = nn.Embedding(width, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.size(2), x.size(3)
        rows = self.row_embed(torch.arange(height, device=x.device))
        columns = self.col_embed(torch.arange(width, device=x.device))
        rows = rows.T[:, :, None].expand(-1, -1, width)
        columns = columns.T[:, None, :].expand(-1, height, -1)
        return x + torch.cat([rows, columns])
