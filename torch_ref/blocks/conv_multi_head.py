"""Attention with 1x1 convolutions, and a multi-head block around it, as in the tutorial's third network."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record


class ConvAttention(nn.Module):
    """query (b, query_in, ...), context (b, mem_in, ...) -> (b, output_size, ...) in the query's shape."""

    def __init__(self, mem_in: int = 32, query_in: int = 32, key_size: int = 32, output_size: int = 32):
        super().__init__()
        self.key = nn.Conv1d(mem_in, key_size, 1)
        self.value = nn.Conv1d(mem_in, output_size, 1)
        self.query = nn.Conv1d(query_in, key_size, 1)
        self.key_size = key_size

    def forward(self, query: Tensor, context: Tensor, *, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        out, weights = self.attend(query.flatten(2), context.flatten(2))
        record(self, "weights", weights)
        out = out.reshape(out.size(0), out.size(1), *query.shape[2:])
        return out, weights if need_weights else None

    def attend(self, query: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Sequences (b, query_in, n_query) and (b, mem_in, n_key) -> (b, output_size, n_query) and the weights."""
        q, k, v = self.query(query), self.key(context), self.value(context)
        scores = torch.matmul(q.transpose(1, 2), k) / math.sqrt(self.key_size)
        weights = torch.softmax(scores, dim=-1)  # over keys, (b, n_query, n_key)
        return torch.matmul(v, weights.transpose(1, 2)), weights.unsqueeze(1)


class ConvMultiHeadAttention(nn.Module):
    """query and context (b, query_in, ...) with as many positions -> (b, query_in, ...) in the query's shape."""

    def __init__(
        self,
        mem_in: int = 32,
        query_in: int = 32,
        key_size: int = 32,
        output_size: int = 32,
        num_heads: int = 4,
    ):
        super().__init__()
        self.layers = nn.ModuleList([ConvAttention(mem_in, query_in, key_size, output_size) for _ in range(num_heads)])
        self.proj_down = nn.Conv1d(num_heads * output_size, query_in, 1)
        self.mixing_layer1 = nn.Conv1d(query_in, query_in, 1)
        self.mixing_layer2 = nn.Conv1d(query_in, query_in, 1)
        self.norm1 = nn.LayerNorm(query_in)
        self.norm2 = nn.LayerNorm(query_in)

    def forward(self, query: Tensor, context: Tensor, *, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        x1, x2 = query.flatten(2), context.flatten(2)
        heads = [layer.attend(x1, x2) for layer in self.layers]
        z1 = torch.cat([out for out, _ in heads], dim=1)
        weights = torch.cat([weights for _, weights in heads], dim=1)
        record(self, "weights", weights)
        record(self, "z1", z1)
        # LayerNorm normalises the last axis, so channels move there and back.
        z2 = self.norm1((self.proj_down(z1) + x2).transpose(1, 2)).transpose(1, 2)
        z3 = self.mixing_layer2(F.relu(self.mixing_layer1(z2))) + z2
        out = self.norm2(z3.transpose(1, 2)).transpose(1, 2)
        return out.reshape(query.shape), weights if need_weights else None
