"""Attention pooling as in CLIP (Radford et al. 2021), and with rotary positions (Su et al. 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record

Size = int | tuple[int, int]


class _AttentionPool(nn.Module):
    def __init__(
        self,
        in_features: int,
        out_features: int | None,
        embed_dim: int | None,
        head_dim: int,
        num_heads: int | None,
        qkv_bias: bool,
        qkv_separate: bool,
        pool_type: str,
        class_token: bool,
        drop_rate: float,
    ):
        super().__init__()
        embed_dim = embed_dim or in_features
        self.num_heads = num_heads or embed_dim // head_dim
        self.head_dim = embed_dim // self.num_heads
        self.qkv_separate, self.pool_type = qkv_separate, pool_type
        self.cls_token = nn.Parameter(torch.zeros(1, embed_dim)) if class_token else None
        if qkv_separate:
            self.q, self.k, self.v = (nn.Linear(in_features, embed_dim, bias=qkv_bias) for _ in range(3))
        else:
            self.qkv = nn.Linear(in_features, 3 * embed_dim, bias=qkv_bias)
        self.drop = nn.Dropout(drop_rate)
        out_features = in_features if out_features is None else out_features
        self.proj = nn.Linear(embed_dim, out_features) if out_features else nn.Identity()

    def tokens_of(self, x: Tensor) -> Tensor:
        """The first token, the mean or a learned one, and the places."""
        tokens = x.flatten(2).transpose(1, 2)
        first = tokens.mean(1, keepdim=True) if self.cls_token is None else self.cls_token.expand(x.size(0), 1, -1)
        return torch.cat([first, tokens], dim=1)

    def heads_of(self, tokens: Tensor) -> list[Tensor]:
        """Query, key and value, (b, heads, 1 + n, d) each."""
        parts = (
            [self.q(tokens), self.k(tokens), self.v(tokens)] if self.qkv_separate else self.qkv(tokens).chunk(3, dim=2)
        )
        return [part.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2) for part in parts]

    def pool(self, q: Tensor, k: Tensor, v: Tensor, height: int, width: int) -> Tensor:
        """The output for the first token, or for the places alone."""
        q = q[:, :, :1] if self.pool_type == "token" else q[:, :, 1:]
        weights = torch.softmax(q @ k.transpose(2, 3) / self.head_dim**0.5, dim=-1)
        record(self, "weights", weights[..., 1:])
        out: Tensor = self.proj(self.drop((weights @ v).transpose(1, 2).flatten(2)))
        return out[:, 0] if self.pool_type == "token" else out.transpose(1, 2).unflatten(2, (height, width))


class AttentionPool2d(_AttentionPool):
    """x (b, in_features, h, w) -> (b, out_features), or (b, out_features, h, w) with pool_type ""."""

    def __init__(
        self,
        in_features: int,
        feat_size: Size = 7,
        out_features: int | None = None,
        embed_dim: int | None = None,
        head_dim: int = 64,
        num_heads: int | None = None,
        qkv_bias: bool = True,
        qkv_separate: bool = False,
        pool_type: str = "token",
        class_token: bool = False,
        drop_rate: float = 0.0,
    ):
        super().__init__(
            in_features,
            out_features,
            embed_dim,
            head_dim,
            num_heads,
            qkv_bias,
            qkv_separate,
            pool_type,
            class_token,
            drop_rate,
        )
        self.feat_size = (feat_size, feat_size) if isinstance(feat_size, int) else feat_size
        self.pos_embed = nn.Parameter(torch.empty(self.feat_size[0] * self.feat_size[1] + 1, in_features))
        for layer in (self.q, self.k, self.v) if qkv_separate else (self.qkv,):
            nn.init.trunc_normal_(layer.weight, std=in_features**-0.5)
            if qkv_bias:
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.pos_embed, std=in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        places = self.pos_embed[1:].T.unflatten(1, self.feat_size)[None]
        if self.feat_size != (height, width):
            wide = places.to(torch.promote_types(places.dtype, torch.float32))
            places = F.interpolate(wide, (height, width), mode="bicubic", antialias=True).to(x.dtype)
        tokens = self.tokens_of(x) + torch.cat([self.pos_embed[:1], places[0].flatten(1).T])
        q, k, v = self.heads_of(tokens)
        return self.pool(q, k, v, height, width)


class RotaryAttentionPool2d(_AttentionPool):
    """x (b, in_features, h, w) -> (b, out_features), or (b, out_features, h, w) with pool_type ""."""

    def __init__(
        self,
        in_features: int,
        out_features: int | None = None,
        ref_feat_size: Size = 7,
        embed_dim: int | None = None,
        head_dim: int = 64,
        num_heads: int | None = None,
        qkv_bias: bool = True,
        qkv_separate: bool = False,
        pool_type: str = "token",
        class_token: bool = False,
        drop_rate: float = 0.0,
    ):
        super().__init__(
            in_features,
            out_features,
            embed_dim,
            head_dim,
            num_heads,
            qkv_bias,
            qkv_separate,
            pool_type,
            class_token,
            drop_rate,
        )
        self.reference = (ref_feat_size, ref_feat_size) if isinstance(ref_feat_size, int) else ref_feat_size

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        q, k, v = self.heads_of(self.tokens_of(x))
        return self.pool(self._turned(q, height, width), self._turned(k, height, width), v, height, width)

    def _turned(self, x: Tensor, height: int, width: int) -> Tensor:
        """Turns all tokens but the first; neighbouring features are the parts of a complex number."""
        bands = 10000.0 ** (-torch.arange(self.head_dim // 4, dtype=torch.float64) / (self.head_dim // 4))
        rows, columns = (
            torch.arange(length, dtype=torch.float64)[:, None] / length * size * bands
            for length, size in zip((height, width), self.reference, strict=True)
        )
        rows = rows[:, None].expand(-1, width, -1)
        columns = columns[None].expand(height, -1, -1)
        angles = torch.cat([rows, columns], dim=-1).flatten(0, 1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        even, odd = x[:, :, 1:, 0::2], x[:, :, 1:, 1::2]
        turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(3)
        return torch.cat([x[:, :, :1], turned], dim=2)
