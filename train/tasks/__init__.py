"""What a network can be trained for. A task is one file here and one line below.

`task` says what every task has to answer. Beside these files `train.config` knows the options and presets of a task,
and what a run is called after it, and `train.plots` how patches were drawn; `train.compare`, `train.report` and the
parts of `train.look` that are about patches are for the patch task alone. Nothing else in `train` knows one task from
another.
"""

from ..config import Config
from .channel import ChannelTask as ChannelTask
from .patch import PatchTask as PatchTask
from .protocol import Batch as Batch
from .protocol import Task as Task
from .sensor import SensorTask as SensorTask


def task_of(config: Config) -> Task:
    """The task that ``config`` names.

    Example:
        >>> task_of(Config(patches="article"))
        PatchTask(patches='article')
    """
    tasks: dict[str, Task] = {"patch": PatchTask(config.patches), "channel": ChannelTask(), "sensor": SensorTask()}
    return tasks[config.task]
