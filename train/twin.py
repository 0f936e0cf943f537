"""The PyTorch twin of a network in training: its class, its loss, its step. PyTorch is imported here."""

import numpy as np
import torch

from flax_attn import to_torch
from flax_attn.networks.patch import PatchNetwork
from torch_ref.networks import patch

from .config import Config
from .networks import NETWORKS
from .tasks.patch import TINY


def twin_of(network: PatchNetwork, config: Config, height: int, width: int) -> torch.nn.Module:
    """The twin of our network with its weights and their dtype, in training mode.

    Args:
        network: ours.
        config: read are network and the network's own options.
        height: rows of the images.
        width: columns of the images.

    Example:
        >>> from train.networks import build_network
        >>> config = Config(network="cbam")
        >>> type(twin_of(build_network(config, 96, 96), config, 96, 96)).__name__
        'NetCBAM'
    """
    own = {}
    if "token_order" in NETWORKS[config.network].options:
        position = None if config.position == "none" else config.position
        own = {"token_order": config.token_order, "position": position, "height": height // 4, "width": width // 4}
    weights = {name: torch.tensor(array) for name, array in to_torch(network).items()}
    twin = getattr(patch, type(network).__name__)(**own).to(weights["final.weight"].dtype)
    twin.load_state_dict(weights)
    return twin.train()


def tensors(
    x: np.ndarray, y: np.ndarray, dtype: str, memory_format: torch.memory_format
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (b, h, w, 3) and labels (b,) as the twin takes them, the images as (b, 3, h, w)."""
    images = torch.tensor(x, dtype=getattr(torch, dtype)).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
    return images, torch.tensor(y, dtype=images.dtype)


def take_step(
    twin: torch.nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor, rate: float
) -> tuple[float, float]:
    """One optimizer step on images (b, 3, h, w) and labels (b,).

    Returns:
        The loss before it, and the share of the images that was judged rightly.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    p = twin(images)[0]
    loss = error_of(p, labels)
    loss.backward()
    optimizer.step()
    return loss.item(), share_right(p, labels)


def error_of(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The tutorial's loss, as it writes it.

    Example:
        >>> error_of(torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.0])).item().__round__(4)
        0.3466
    """
    return -torch.mean(y * torch.log(p + TINY) + (1 - y) * torch.log(1 - p + TINY))


def share_right(p: torch.Tensor, y: torch.Tensor) -> float:
    """The share of predictions, p rounded, that are the label."""
    return (torch.round(p) == y).float().mean().item()
