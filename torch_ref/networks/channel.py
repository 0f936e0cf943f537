"""A classifier with channel attention."""

from torch import Tensor, nn

from ..blocks.channel import UseAttentionModel


class ChannelAttentionClassifier(nn.Module):
    """Classifies maps (b, c, h, w); returns logits (b, category) and the attended map."""

    def __init__(self, in_planes: int, category: int, ratio: int = 16):
        super().__init__()
        self.attention = UseAttentionModel(in_planes, ratio)
        self.fc = nn.Linear(in_planes, category)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        attended = self.attention(x)
        return self.fc(attended.mean((2, 3))), attended
