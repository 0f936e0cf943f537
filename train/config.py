"""The options of a run: a dataclass per task, which is the command line, ``config.json`` and the presets at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import tyro

from flax_attn._check import nearest
from flax_attn.convert import NAMES
from flax_attn.networks.resnet import RESNETS
from flax_attn.registry import BLOCKS

ATTENTION = sorted(entry.name for entry in BLOCKS if entry.kind != "head")
NETWORKS = ["cnn", *ATTENTION]
IN_RESNETS = sorted(entry.name for entry in BLOCKS if entry.kind == "gate" and not entry.needs_size)
TaskName = Literal["patch", "channel", "sensor", "classes"]
# The smallest value of each option.
LEAST = {"epochs": 1, "batch_size": 1, "save_steps": 0, "keep": 1, "token_devices": 1, "ratio": 1, "image_size": 16}
PLAIN = [name for name in RESNETS if name.startswith("resnet")]  # without attention


def told_default(text: str, metavar: str | None = None) -> Any:
    """For an option whose default, None, stands for something that the help should name."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {text})")


@dataclass(frozen=True)
class Config:
    """Trains a small network: on images, on arrays, or on windows of sensor data.

    Attributes:
        preset: The defaults of all other options: quick, minutes on a CPU; article, the tutorial's, where it has any.
        task: What is learned. patch: whether an image holds a white patch; channel: the class of an array, behind a
            gate for its channels; sensor: the class of a window of sensor data, with gates along time; classes: the
            class of an image, by a ResNet with any attention.
        data: The images, arrays or windows: synthetic, generated from a seed; npz:PATH, an archive. Images also:
            folder:PATH, photos, for the task classes with a subfolder per class. For the task patch also: stl10 or
            stl10:FOLDER; stl10-unlabelled or stl10-unlabelled:FOLDER, for its 100,000 images (docs/data.md). The first
            80 % train; for the task classes those of each class.
        epochs: Passes over the training set.
        batch_size: Images, arrays or windows per step. Each training epoch drops the last, incomplete batch.
        shuffle: Whether each training epoch has its own random order, or file order.
        learning_rate: Adam's, or its maximum under a schedule.
        schedule: The learning rate over the run: constant; cosine, down from the maximum to 0; or one_cycle, up over
            the first fifth and down along a cosine.
        dtype: Dtype of the network's computation; parameters and loss are always float32. On CPUs bfloat16 is slower:
            1.3 to 1.9 times float32's time for a step of the patch networks.
        seed: Seed of the weights, the patches, the order in training and dropout.
        save_steps: Steps between checkpoints within an epoch; 0 saves only after each epoch and when stopped.
        keep: Number of latest checkpoints to keep.
        devices: How many devices share a batch, with as many in each process.
        token_devices: How many of them share the rows of each image, and so its tokens; the others share the batch.
        sharding: Whether each device holds all parameters and the optimizer's state, replicated, or full: a piece.
        tensorboard: Whether to write event files for TensorBoard, into the run folder's tensorboard.
        run_dir: The folder for results, new or empty.
    """

    preset: Literal["quick", "article"] = "quick"
    task: TaskName = "patch"
    data: Annotated[str, tyro.conf.arg(metavar="KIND[:PATH]")] = "synthetic"
    epochs: int = 3
    batch_size: int = 32
    shuffle: bool = True
    learning_rate: float = 3e-3
    schedule: Literal["constant", "cosine", "one_cycle"] = "one_cycle"
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    save_steps: int = 0
    keep: int = 3
    devices: Annotated[int | None, told_default("all of several processes; of one as many as divide the batch")] = None
    token_devices: int = 1
    sharding: Literal["replicated", "full"] = "replicated"
    tensorboard: bool = False
    run_dir: Annotated[str | None, told_default("runs/TIME-NETWORK, or runs/TIME-TASK", "DIR")] = None

    # May change when a run is resumed, as they change no number but for rounding; data elsewhere have to be the same.
    FREE: ClassVar = ("data", "save_steps", "keep", "devices", "token_devices", "sharding", "tensorboard")

    @property
    def title(self) -> str:
        """What is trained, in a word: the network's name, or the task's where it has only one."""
        return str(getattr(self, "network", self.task))


@dataclass(frozen=True)
class PatchConfig(Config):
    """Trains a small network to tell whether an image holds a white patch.

    Attributes:
        network: The block before the classifier, by its name in docs/blocks.md; cnn for none. cbam is the channel gate
            alone, as in the tutorial; cbam_spatial has both gates.
        patches: per_image draws a patch for each image, new in each training epoch, fixed for testing; article derives
            it from the position in the batch, as in the tutorial.
        token_order: What a token is, for blocks over tokens: a pixel with its channels, or the tutorial's reshape.
        position: The position encoding in front of a block over tokens.
    """

    network: Annotated[str, tyro.conf.arg(metavar="NAME")] = "cbam"
    patches: Literal["per_image", "article"] = "per_image"
    token_order: Literal["pixels", "article"] = "pixels"
    position: Literal["none", "sine", "learned"] = "none"


@dataclass(frozen=True)
class ChannelConfig(Config):
    """Trains a small network to tell the class of an array, behind a gate for its channels.

    Attributes:
        ratio: Reduction ratio of the gate's hidden layer.
    """

    task: TaskName = "channel"
    ratio: Annotated[int | None, told_default("16, or the number of channels where that is smaller")] = None


@dataclass(frozen=True)
class SensorConfig(Config):
    """Trains a small network to tell the class of a window of sensor data, with gates along time."""

    task: TaskName = "sensor"


@dataclass(frozen=True)
class ClassesConfig(Config):
    """Trains a ResNet, with or without attention, to tell the classes of images.

    Attributes:
        network: A name of `flax_attn.networks.resnet.RESNETS`, such as resnet18 or seresnet50.
        attention: A block of kind gate for resnet18, 34, 50, 101 or 152, by its name in docs/blocks.md; none for none.
            cbam is the channel gate alone; cbam_spatial is the published CBAM, with both gates.
        pretrained: A checkpoint of PyTorch to start from. A classifier for another number of classes, and attention
            that the checkpoint lacks, start anew.
        names: The table of flax_attn.convert.NAMES for a checkpoint of another package than torchvision.
        image_size: Pixels along each side of the square images; an archive's images keep their size.
        augment: Whether training images are flipped and shifted at random.
        label_smoothing: Share of the label that training spreads over all classes, from 0 to below 1.
    """

    task: TaskName = "classes"
    learning_rate: float = 1e-3
    network: Annotated[str, tyro.conf.arg(metavar="NAME")] = "resnet18"
    attention: Annotated[str, tyro.conf.arg(metavar="NAME")] = "none"
    pretrained: Annotated[str | None, told_default("random weights", "FILE")] = None
    names: Annotated[str | None, told_default("torchvision's names", "TABLE")] = None
    image_size: int = 64
    augment: bool = True
    label_smoothing: float = 0.1

    @property
    def title(self) -> str:
        return self.network if self.attention == "none" else f"{self.network}-{self.attention}"


PRESETS: dict[str, dict[str, Config]] = {
    "patch": {
        # 11 s an epoch on two CPU cores; test accuracy 0.991 on the synthetic images, 0.986 on 5,000 photographs.
        "quick": PatchConfig(),
        # The tutorial's settings: 50 epochs of Adam 1e-4 over batches of 10 in file order.
        "article": PatchConfig(
            preset="article",
            patches="article",
            token_order="article",
            epochs=50,
            batch_size=10,
            shuffle=False,
            learning_rate=1e-4,
            schedule="constant",
        ),
    },
    "channel": {
        # Test accuracy on the generated arrays: 0.980.
        "quick": ChannelConfig(batch_size=30, epochs=10, learning_rate=1e-2),
        # The tutorial's settings: 100 epochs of Adam 1e-3 over shuffled batches of 30, the incomplete one dropped.
        "article": ChannelConfig(preset="article", batch_size=30, epochs=100, learning_rate=1e-3, schedule="constant"),
    },
    "sensor": {
        # Test accuracy on the generated windows: 0.870.
        "quick": SensorConfig(epochs=5),
        # The tutorial leaves all settings open.
        "article": SensorConfig(preset="article", epochs=50, learning_rate=1e-3, schedule="constant"),
    },
    "classes": {
        # Test accuracy on the generated images with --attention cbam_spatial: 0.995; 250 s of CPU time.
        "quick": ClassesConfig(epochs=8),
        # No tutorial has this task: the image size of ImageNet's networks, and epochs for a GPU.
        "article": ClassesConfig(preset="article", epochs=90, batch_size=128, schedule="cosine", image_size=224),
    },
}


def flag(name: str) -> str:
    """An option as the command line spells it."""
    return f"--{name.replace('_', '-')}"


def check(config: Config) -> None:
    """Raises ``ValueError`` where a value is out of range, or the network lacks an option that is set."""
    for name, least in LEAST.items():
        value = getattr(config, name, None)
        if value is not None and value < least:
            raise ValueError(f"{flag(name)} must be at least {least}, got {value}")
    if not (math.isfinite(config.learning_rate) and config.learning_rate > 0):
        raise ValueError(f"--learning-rate must be a positive number, got {config.learning_rate}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie in [0, 2**32), got {config.seed}")
    if isinstance(config, ClassesConfig):
        _check_classes(config)
    if not isinstance(config, PatchConfig):
        return
    _check_name("network", config.network, NETWORKS, "cnn or a block of flax_attn.list_blocks()")
    preset = PRESETS[config.task][config.preset]
    tokens = [entry.name for entry in BLOCKS if entry.over_tokens]
    for name in ("token_order", "position"):
        if config.network not in tokens and getattr(config, name) != getattr(preset, name):
            over = f"a --network over tokens, {', '.join(tokens)}"
            raise ValueError(f"{flag(name)} needs {over}, got --network {config.network}")


def _check_classes(config: ClassesConfig) -> None:
    _check_name("network", config.network, [*RESNETS], "a name of flax_attn.networks.resnet.RESNETS")
    told = "none or a block of kind gate (docs/blocks.md) for maps of any size"
    _check_name("attention", config.attention, ["none", *IN_RESNETS], told)
    if config.attention != "none" and config.network not in PLAIN:
        raise ValueError(f"--attention needs --network {' or '.join(PLAIN)}, got --network {config.network}")
    if config.names is not None:
        _check_name("names", config.names, [*NAMES], "a table of flax_attn.convert.NAMES")
        if config.pretrained is None:
            raise ValueError(f"--names needs --pretrained, got --names {config.names} alone")
    if not 0 <= config.label_smoothing < 1:
        raise ValueError(f"--label-smoothing must lie in [0, 1), got {config.label_smoothing}")


def _check_name(option: str, value: str, known: Sequence[str], told: str) -> None:
    if value not in known:
        raise ValueError(f"{flag(option)} must be {told}, got {value!r}; {nearest(value, known)}")
