"""The rows of the results table, and what the tutorial printed for them."""

from typing import Literal, NamedTuple

from ..config import NetworkName

Protocol = Literal["per_image", "article"]
PROTOCOLS: tuple[Protocol, ...] = ("per_image", "article")

RowName = Literal[
    "cnn",
    "multi_head-article",
    "multi_head-pixels",
    "multi_head-sine",
    "multi_head-learned",
    "conv_multi_head",
    "cbam",
    "cbam_spatial",
    "pointwise_spatial",
    "channel_attention",
]


class Tutorial(NamedTuple):
    """The smallest errors over 50 epochs on STL-10 that the tutorial reports."""

    train_error: float
    test_error: float


class Row(NamedTuple):
    """A network with its options.

    Attributes:
        title: in tables.
        network: as for training.
        token_order: of multi_head.
        position: of multi_head.
        tutorial: what it printed, if it trained this network.
    """

    title: str
    network: NetworkName
    token_order: Literal["pixels", "article"] = "pixels"
    position: Literal["none", "sine", "learned"] = "none"
    tutorial: Tutorial | None = None


ROWS: dict[RowName, Row] = {
    "cnn": Row("CNN alone", "cnn", tutorial=Tutorial(0.0011167, 0.0541200)),
    "multi_head-article": Row(
        "multi-head, tokens in article order", "multi_head", "article", tutorial=Tutorial(9.81e-6, 0.0420922)
    ),
    "multi_head-pixels": Row("multi-head, tokens are pixels", "multi_head"),
    "multi_head-sine": Row("multi-head over pixels, sine positions", "multi_head", position="sine"),
    "multi_head-learned": Row("multi-head over pixels, learned positions", "multi_head", position="learned"),
    "conv_multi_head": Row("convolutional multi-head", "conv_multi_head", tutorial=Tutorial(0.000254702, 0.0142783)),
    "cbam": Row("CBAM, channel gate alone", "cbam", tutorial=Tutorial(2.787e-5, 0.0280480)),
    "cbam_spatial": Row("CBAM with the spatial gate", "cbam_spatial"),
    "pointwise_spatial": Row("point-wise spatial attention", "pointwise_spatial"),
    "channel_attention": Row("channel attention", "channel_attention"),
}
