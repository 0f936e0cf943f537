"""Masks and biases of attention scores, for all blocks that take them."""

from torch import Tensor


def apply_mask(scores: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
    """Adds ``bias`` to the scores and sets those to -1e9 where ``mask``, of booleans or integers, is 0."""
    if bias is not None:
        if not bias.is_floating_point():
            raise ValueError(f"bias must be of floats, added to the scores, got {bias.dtype}: pass mask= to hide keys")
        scores = scores + bias
    if mask is None:
        return scores
    if mask.is_floating_point() or mask.is_complex():
        raise ValueError(
            f"mask must be of booleans or integers, 0 hides a key, got {mask.dtype}: pass mask.bool() if its zeros "
            "hide, or bias=mask if it is added to the scores, like PyTorch's float masks of 0 and -inf"
        )
    return scores.masked_fill(mask == 0, -1e9)
