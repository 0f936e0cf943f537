"""What a network can be trained for.

A task opens its data, builds a network for them, draws a batch (x, y) of records inside the compiled step, and compares
the network's answer to x with y: ``loss`` is what training makes small, ``error`` what a test reports. Steps are
compiled for a task, so equal tasks must compute the same.
"""

from ..config import ChannelConfig, ClassesConfig, Config, PatchConfig
from .classes import ClassesTask as ClassesTask
from .labelled import ChannelTask as ChannelTask
from .labelled import SensorTask as SensorTask
from .patch import TEST as TEST
from .patch import TRAIN as TRAIN
from .patch import PatchTask as PatchTask
from .patch import split_key as split_key

Task = PatchTask | ChannelTask | SensorTask | ClassesTask


def task_of(config: Config) -> Task:
    """The task that ``config`` is for."""
    if isinstance(config, PatchConfig):
        return PatchTask(config.patches)
    if isinstance(config, ClassesConfig):
        return ClassesTask(config.image_size, config.augment, config.label_smoothing)
    return ChannelTask() if isinstance(config, ChannelConfig) else SensorTask()
