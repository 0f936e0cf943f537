"""What a network can be trained for; `train.step.Task` says what a task defines."""

from ..config import ChannelConfig, Config, PatchConfig, SensorConfig
from ..step import Task as Task
from .labelled import ChannelTask as ChannelTask
from .labelled import SensorTask as SensorTask
from .patch import PatchTask as PatchTask


def task_of(config: Config) -> Task:
    """The task that ``config`` is for."""
    match config:
        case PatchConfig():
            return PatchTask(config.patches)
        case ChannelConfig():
            return ChannelTask()
        case SensorConfig():
            return SensorTask()
    raise TypeError(f"config must be of a task, got {type(config).__name__}")
