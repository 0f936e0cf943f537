"""Converts weights between PyTorch and Flax: by name and layer type, all or nothing.

`flax_attn.from_torch` and `flax_attn.to_torch` know the layers below and their subclasses. Conversion copies numbers;
the functions are equal only if the layers also have equal settings, which the notes describe. The layers of
`flax_attn.layers` have PyTorch's settings and arithmetic already.

- ``torch.nn.Linear``: ``nnx.Linear``; or ``nnx.LinearGeneral``, as a Linear over flattened axes, no ``batch_axis``.
- ``torch.nn.Conv1d``, ``Conv2d``, ``Conv3d``: ``nnx.Conv``, with ``padding=`` in numbers (PyTorch's default is 0,
  Flax's "SAME", which is PyTorch's "same" at stride 1), ``feature_group_count=`` groups, ``kernel_dilation=`` dilation.
- ``torch.nn.ConvTranspose1d``, ``2d``, ``3d``: ``nnx.ConvTranspose``, with ``transpose_kernel`` either way, for kernel
  size k, dilation d and PyTorch's padding p: ``padding=[(d * (k - 1) - p, d * (k - 1) - p + output_padding), ...]``,
  one pair per axis, as `flax_attn.layers.ConvTranspose` does it. Flax's layer has no groups.
- ``torch.nn.BatchNorm1d``, ``2d``, ``3d``: `flax_attn.layers.BatchNorm`, ``num_batches_tracked`` included if
  ``momentum`` is None; or ``nnx.BatchNorm`` with ``momentum=0.9`` for
  PyTorch's 0.1 and ``use_fast_variance=False``, whose running variance is the biased one: equal in eval mode, but not
  after training steps. ``affine=False`` is ``use_scale=False, use_bias=False``; ``track_running_stats=False`` has no
  counterpart.
- ``torch.nn.LayerNorm`` over the last axis: `flax_attn.layers.LayerNorm`; or ``nnx.LayerNorm`` with ``epsilon=1e-5``
  (Flax's default is 1e-6) and ``use_fast_variance=False``.
- ``torch.nn.GroupNorm``: `flax_attn.layers.GroupNorm`; or ``nnx.GroupNorm``, with the same two settings.
- ``torch.nn.InstanceNorm1d``, ``2d``, ``3d``: ``nnx.InstanceNorm``, with the same two settings. PyTorch's InstanceNorm
  has no weights by default: ``use_scale=False, use_bias=False``, or ``affine=True`` there.
- ``torch.nn.RMSNorm`` over the last axis: ``nnx.RMSNorm``. PyTorch's default ``eps`` is the dtype's own: give both one.
- ``torch.nn.Embedding``: `flax_attn.layers.Embedding`; or ``nnx.Embed``, which has no ``padding_idx``, whose row
  PyTorch does not train. Neither has ``max_norm``.
- ``torch.nn.PReLU()``: ``nnx.PReLU``, which has a single slope (and starts from 0.01, not 0.25).
- ``torch.nn.MultiheadAttention``: `flax_attn.layers.MultiheadAttention`; or ``nnx.MultiHeadAttention``, packed and
  unpacked weights alike, with ``decode=False`` and ``in_kv_features=`` kdim and vdim. PyTorch's wants
  ``batch_first=True`` for the same axes, takes masks of the opposite sense, and has neither ``num_kv_heads``,
  ``normalize_qk`` nor ``qkv_features`` and ``out_features`` of their own; Flax's has neither ``add_bias_kv`` nor
  ``add_zero_attn``, and takes the softmax in float32: `flax_attn.convert.attention` has an ``attention_fn`` for
  float64.
- ``torch.nn.Sequential``, ``ModuleList``: ``nnx.Sequential``, ``nnx.List``, lists and tuples, numbered alike.
- ``torch.nn.ModuleDict``: ``nnx.Dict`` and dicts, by key. Any other module's attributes: by name.

A parameter outside of these layers, such as an ``nnx.Param`` of your own module, is an error until that module has a
rule, which gives its name and layout in PyTorch: see `rule`.
"""

from . import attention as attention
from . import blocks as blocks
from . import layers as layers
from .names import NAMES as NAMES
from .names import OFFICIAL_CBAM_NAMES as OFFICIAL_CBAM_NAMES
from .names import TUTORIAL_NAMES as TUTORIAL_NAMES
from .rules import Entry as Entry
from .rules import rule as rule
from .state_dict import from_torch as from_torch
from .state_dict import to_torch as to_torch
