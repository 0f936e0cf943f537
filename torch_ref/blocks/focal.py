"""Focal modulation (Yang et al. 2022)."""

import torch
from torch import Tensor, nn

from ..maps import record


class FocalModulation(nn.Module):
    """Scales queries of a map (b, dim, h, w) by a modulator, gathered from growing neighbourhoods."""

    def __init__(
        self,
        dim: int,
        focal_window: int,
        focal_level: int,
        focal_factor: int = 2,
        bias: bool = True,
        use_post_norm: bool = False,
        normalize_modulator: bool = False,
        proj_drop: float = 0.0,
    ):
        super().__init__()
        self.dim, self.focal_level, self.normalize_modulator = dim, focal_level, normalize_modulator
        self.f = nn.Conv2d(dim, 2 * dim + focal_level + 1, 1, bias=bias)
        self.h = nn.Conv2d(dim, dim, 1, bias=bias)
        self.act = nn.GELU()
        self.proj = nn.Conv2d(dim, dim, 1)
        self.proj_drop = nn.Dropout(proj_drop)
        kernels = [focal_window + focal_factor * level for level in range(focal_level)]
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim, bias=False), nn.GELU()) for k in kernels
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6) if use_post_norm else None

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = torch.split(self.f(x), (self.dim, self.dim, self.focal_level + 1), 1)
        modulator = torch.zeros_like(context)
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            modulator = modulator + context * gates[:, level : level + 1]
        modulator = modulator + self.act(context.mean((2, 3), keepdim=True)) * gates[:, self.focal_level :]
        if self.normalize_modulator:
            modulator = modulator / (self.focal_level + 1)
        gate = self.h(modulator)
        record(self, "gate", gate)
        out = query * gate
        if self.norm is not None:
            out = self.norm(out.movedim(1, -1)).movedim(-1, 1)
        projected: Tensor = self.proj_drop(self.proj(out).movedim(1, -1)).movedim(-1, 1)
        return projected
