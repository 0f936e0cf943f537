"""PyTorch's side: the twin as it is written, and the forms of it that PyTorch offers to be faster."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from flax_attn import to_torch
from train.config import PatchConfig
from train.twin import error_of, twin_of

from ..blocks.conv_multi_head import ConvAttention
from ..blocks.dot_product import ScaledDotProductAttention
from ..networks.channel import ChannelAttentionClassifier
from ..networks.sensor import SpatialAttentionNeuralNetwork
from ..pairs import create_twin
from .figures import CHANNELS_LAST, COMPILED, FUSED, TUTORIAL
from .ours import Ours
from .subjects import BACKWARD, FORWARD, STEP, Subject

MOST_PRODUCTS = 2**29  # of channels, keys and queries: 2 GiB of float32, and as much again for the gradients


def twin(subject: Subject, ours: Ours) -> torch.nn.Module:
    """The twin with the weights of ours."""
    module: torch.nn.Module
    name, config = subject.name.split("/")[1], subject.config if not subject.is_block else None
    if isinstance(config, PatchConfig):
        height, width, _ = subject.size
        return twin_of(ours.module, config, 4 * height, 4 * width)
    weights = {name: torch.tensor(array) for name, array in to_torch(ours.module).items()}
    if subject.is_block:
        height, width, channels = subject.size
        module = create_twin(name, channels, (height, width))
    elif name == "channel":
        module = ChannelAttentionClassifier(ours.x.shape[-1], *weights["fc.bias"].shape)
    else:
        module = SpatialAttentionNeuralNetwork((0, *ours.x.shape[1:3]), *weights["fc.bias"].shape)
    module.load_state_dict(weights)
    return module


def input_of(ours: Ours) -> Tensor:
    """The input of ours in PyTorch's layout."""
    x = torch.tensor(ours.x)
    return x.permute(0, 3, 1, 2).contiguous() if x.dim() == 4 else x


def loss(out: Tensor, y: Any) -> Tensor:
    """The loss of a network: the tutorial's of probabilities, or the cross-entropy of logits."""
    return error_of(out, y) if out.dim() == 1 else F.cross_entropy(out, y.long())


class Theirs:
    """One of `figures.FORMS` of the twin of ours.

    Attributes:
        works: by name, functions that do the work and return when it is done; empty where the twin has no such form.
    """

    def __init__(self, subject: Subject, ours: Ours, form: str, device: str | None = None) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.works: dict[str, Callable[[], Any]] = {}
        module, x = twin(subject, ours), input_of(ours)
        if not has_form(module, x, form):
            return
        if form in (FUSED, TUTORIAL):
            replace_attention(module, fused if form == FUSED else tutorial)
        if form == CHANNELS_LAST:
            module, x = module.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
        trained, x = module.to(self.device).train(), x.to(self.device)
        tested = copy.deepcopy(trained).eval()
        with torch.no_grad():
            change = torch.ones_like(subject.call(tested, x))
        wanted = [*trained.parameters(), *([x.requires_grad_()] if subject.is_block else [])]
        optimizer = torch.optim.Adam(wanted)
        if form == COMPILED:
            trained, tested = torch.compile(trained), torch.compile(tested)
        y = None if ours.y is None else torch.tensor(ours.y, device=self.device)

        def forward() -> None:
            with torch.no_grad():
                subject.call(tested, x)

        def both() -> None:
            torch.autograd.grad(subject.call(trained, x), wanted, change)

        def step() -> None:
            optimizer.zero_grad()
            loss(subject.call(trained, x), y).backward()
            optimizer.step()

        works: dict[str, Callable[[], Any]] = {FORWARD: forward, BACKWARD: both, STEP: step}
        self.works = {work: partial(self._finished, works[work]) for work in subject.works}

    def _finished(self, work: Callable[[], Any]) -> None:
        work()
        if self.device == "cuda":
            torch.cuda.synchronize()


def has_form(module: torch.nn.Module, x: Tensor, form: str) -> bool:
    """Whether a twin has a form that differs from how it is written, and fits into the machine."""
    b, c, *places = x.shape
    if form == TUTORIAL and x.dim() == 4 and b * c * math.prod(places) ** 2 > MOST_PRODUCTS:
        return False
    kinds = {FUSED: (ScaledDotProductAttention, ConvAttention), TUTORIAL: (ConvAttention,)}
    if form in kinds:
        return any(isinstance(inner, kinds[form]) for inner in module.modules())
    # Kernels of three dimensions have no such format.
    return form != CHANNELS_LAST or (x.dim() == 4 and all(weight.dim() != 5 for weight in module.parameters()))


Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]  # query, key, value (..., n, d) and the scale of scores


def replace_attention(module: torch.nn.Module, attend: Attend) -> None:
    """Makes the dot-product attentions inside a module compute another way, without attention weights."""

    def of_heads(
        inner: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, bias: None, **_: Any
    ) -> tuple[Tensor, None]:
        return attend(query, key, value, 1 / inner.temperature), None

    def of_sequences(inner: Any, query: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (z.transpose(1, 2) for z in (inner.query(query), inner.key(context), inner.value(context)))
        out = attend(q, k, v, 1 / math.sqrt(inner.key_size)).transpose(1, 2)
        return out, out.new_empty(len(out), 1, 0, 0)

    for inner in module.modules():
        replaced: Any = inner
        if isinstance(inner, ScaledDotProductAttention):
            replaced.forward = partial(of_heads, inner)
        elif isinstance(inner, ConvAttention):
            replaced.attend = partial(of_sequences, inner)


def fused(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """PyTorch's own kernel, which keeps no weights; it wants an axis of heads, and features side by side."""
    if query.dim() == 3:
        query, key, value = (z.contiguous().unsqueeze(1) for z in (query, key, value))
        return fused(query, key, value, scale).squeeze(1)
    return F.scaled_dot_product_attention(query, key, value, scale=scale)


def tutorial(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The tutorial's formula for its 1x1 convolutions, with products (b, d, n_key, n_query), on (b, n, d)."""
    q, k, v = (z.transpose(1, 2) for z in (query, key, value))
    weights = torch.softmax(torch.sum(q.unsqueeze(2) * k.unsqueeze(3), 1) * scale, dim=1)
    return torch.sum(weights.unsqueeze(1) * v.unsqueeze(3), 2).transpose(1, 2)


def costs(subject: Subject, ours: Ours) -> dict[str, tuple[float, float]]:
    """For each work the operations of the twin, and the bytes that any implementation has to move.

    Operations are those of convolutions and matrix products. Bytes are those of inputs, outputs and parameters, each
    moved once, and once more as gradients.
    """
    module, x = copy.deepcopy(twin(subject, ours)).to("meta"), input_of(ours).to("meta")
    with torch.device("meta"), FlopCounterMode(display=False) as once:  # what it creates must be there too
        out = subject.call(module, x.requires_grad_(subject.is_block))
    with FlopCounterMode(display=False) as again:
        out.sum().backward()
    moved = 4 * (x.numel() + out.numel() + sum(parameter.numel() for parameter in module.parameters()))
    forward, both = once.get_total_flops(), once.get_total_flops() + again.get_total_flops()
    return {work: (forward, moved) if work == FORWARD else (both, 2 * moved) for work in subject.works}


def held_bytes(subject: Subject, ours: Ours) -> int:
    """About how much the twin keeps from its forward for its backward pass; what is kept twice counts twice."""
    module, x = copy.deepcopy(twin(subject, ours)).to("meta"), input_of(ours).to("meta")
    sizes = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        subject.call(module, x.requires_grad_(subject.is_block))
    return sum(sizes)
