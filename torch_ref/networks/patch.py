"""Small CNNs that detect a white patch in an image (b, 3, h, w), as in the first tutorial."""

import inspect

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.cbam import CBAM
from ..blocks.conv_multi_head import ConvMultiHeadAttention
from ..blocks.multi_head import MultiHeadAttention
from ..blocks.position import LearnedPositionEncoding2d, SinePositionEncoding2d


class ConvPart(nn.Module):
    """(b, 3, h, w) -> (b, 32, h // 4, w // 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.c1a = nn.Conv2d(3, 32, 5, padding=2)
        self.p1 = nn.MaxPool2d(2)
        self.c2a = nn.Conv2d(32, 32, 5, padding=2)
        self.p2 = nn.MaxPool2d(2)
        self.c3 = nn.Conv2d(32, 32, 5, padding=2)
        self.bn1a = nn.BatchNorm2d(32)
        self.bn2a = nn.BatchNorm2d(32)

    def forward(self, x: Tensor) -> Tensor:
        z = self.p1(self.bn1a(F.leaky_relu(self.c1a(x))))
        z = self.p2(self.bn2a(F.leaky_relu(self.c2a(z))))
        return self.c3(z)


class PatchNetwork(nn.Module):
    """Convolutional part, any attention block or none, global average pooling and a linear classifier."""

    def __init__(self, block: nn.Module | None = None, token_order: str = "pixels", position: nn.Module | None = None):
        super().__init__()
        self.conv = ConvPart()
        self.position = position
        self.attn1 = block
        self.final = nn.Linear(32, 1)
        self.token_order = token_order

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        attended = self.attend(self.conv(x))
        z = attended.mean(3).mean(2)
        return torch.sigmoid(self.final(z))[:, 0], attended

    def attend(self, z: Tensor) -> Tensor:
        if self.attn1 is None:
            return z
        return self_attend(self.attn1, z, self.token_order, self.position)


def self_attend(block: nn.Module, z: Tensor, token_order: str = "pixels", position: nn.Module | None = None) -> Tensor:
    """Applies any block to a map (b, c, h, w), as self-attention for token blocks."""
    arguments = inspect.signature(block.forward).parameters
    if "context" in arguments:
        return block(z, z)[0]
    if arguments.keys().isdisjoint(("key", "tokens")):
        return block(z)
    b, c, h, w = z.shape
    z = z if position is None else position(z)
    if token_order not in ("pixels", "article"):
        raise ValueError(f"token_order must be 'pixels' or 'article', got {token_order!r}")
    in_article_order = token_order == "article"  # the tutorial's reshape, without a transpose
    tokens = z.reshape(b, h * w, c) if in_article_order else z.flatten(2).transpose(1, 2)
    attended = block(tokens, tokens, tokens)[0] if "key" in arguments else block(tokens)
    return attended.reshape(b, c, h, w) if in_article_order else attended.transpose(1, 2).reshape(b, c, h, w)


def create_position(position: str | None, height: int, width: int) -> nn.Module | None:
    """Creates the position encoding (None, "sine" or "learned") for a map (b, 32, height, width)."""
    if position == "sine":
        return SinePositionEncoding2d(32)
    if position == "learned":
        return LearnedPositionEncoding2d(height, width, 32)
    return None


class Net(PatchNetwork):
    def __init__(self) -> None:
        super().__init__()


class NetMultiHeadAttention(PatchNetwork):
    def __init__(
        self,
        token_order: str = "pixels",
        position: str | None = None,
        height: int = 24,
        width: int = 24,
        dropout: float = 0.1,
    ):
        block = MultiHeadAttention(n_head=4, d_model=32, d_k=8, d_v=8, dropout=dropout)
        super().__init__(block, token_order, create_position(position, height, width))


class NetConvMultiHeadAttention(PatchNetwork):
    def __init__(self) -> None:
        super().__init__(ConvMultiHeadAttention())


class NetCBAM(PatchNetwork):
    def __init__(self, no_spatial: bool = True):
        super().__init__(CBAM(32, no_spatial=no_spatial))
