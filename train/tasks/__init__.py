"""What a network can be trained for.

A task opens its data, builds a network for them, draws a batch (x, y) of records inside the compiled step, and compares
the network's answer to x with y. Steps are compiled for a task, so equal tasks must compute the same.
"""

from ..config import ChannelConfig, Config, PatchConfig
from .labelled import ChannelTask as ChannelTask
from .labelled import SensorTask as SensorTask
from .patch import TEST as TEST
from .patch import TRAIN as TRAIN
from .patch import PatchTask as PatchTask
from .patch import split_key as split_key

Task = PatchTask | ChannelTask | SensorTask


def task_of(config: Config) -> Task:
    """The task that ``config`` is for."""
    if isinstance(config, PatchConfig):
        return PatchTask(config.patches)
    return ChannelTask() if isinstance(config, ChannelConfig) else SensorTask()
