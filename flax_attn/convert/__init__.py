"""Weights between PyTorch and Flax: by name, by layer type, all or nothing."""

from .names import OFFICIAL_CBAM_NAMES as OFFICIAL_CBAM_NAMES
from .names import TUTORIAL_NAMES as TUTORIAL_NAMES
from .state_dict import from_torch as from_torch
from .state_dict import to_torch as to_torch
