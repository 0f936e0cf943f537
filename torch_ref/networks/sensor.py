"""A convolutional network with spatial attention for windows of sensor data, as in the third tutorial."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ..blocks.spatial import SpatialAttentionModule


class SpatialAttentionNeuralNetwork(nn.Module):
    """Classifies windows (b, 1, series, modal); returns logits (b, category)."""

    def __init__(self, train_shape: Sequence[int], category: int):
        super().__init__()
        widths = (1, 64, 128, 256, 512)
        self.layer = nn.Sequential(*(layer for pair in pairwise(widths) for layer in self.stage(*pair)))
        self.ada_pool = nn.AdaptiveAvgPool2d((1, train_shape[-1]))
        self.fc = nn.Linear(512 * train_shape[-1], category)

    @staticmethod
    def stage(narrow: int, wide: int) -> list[nn.Module]:
        return [
            nn.Conv2d(narrow, wide, (3, 1), (2, 1), (1, 0)),
            SpatialAttentionModule(),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
        ]

    def forward(self, x: Tensor) -> Tensor:
        x = self.ada_pool(self.layer(x))
        return self.fc(x.flatten(1))
