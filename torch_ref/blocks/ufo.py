"""UFO-ViT's attention (Song 2021)."""

import torch
from torch import Tensor, nn


class UFOAttention(nn.Module):
    """Attention with norms in place of a softmax, linear in the tokens (b, n, d_model)."""

    def __init__(self, d_model: int, d_k: int, d_v: int, h: int):
        super().__init__()
        self.h = h
        self.fc_q = nn.Linear(d_model, h * d_k)
        self.fc_k = nn.Linear(d_model, h * d_k)
        self.fc_v = nn.Linear(d_model, h * d_v)
        self.fc_o = nn.Linear(h * d_v, d_model)
        self.gamma = nn.Parameter(torch.randn(1, h, 1, 1))
        for layer in (self.fc_q, self.fc_k, self.fc_v, self.fc_o):
            nn.init.normal_(layer.weight, std=0.001)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, None]:
        q, k, v = self.split(self.fc_q(query)), self.split(self.fc_k(key)), self.split(self.fc_v(value))
        context = k.transpose(2, 3) @ v
        out = self.normalise(q) @ self.normalise(context)
        return self.fc_o(out.transpose(1, 2).flatten(2)), None

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.h, -1)).transpose(1, 2)

    def normalise(self, x: Tensor) -> Tensor:
        return self.gamma * x / x.norm(dim=-1, keepdim=True)
