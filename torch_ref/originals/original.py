"""What an original is: published code that a block of ours is equal to, and how the two are held side by side."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ..cases import MAP, Input

# What torchvision's compiled library would define. Its wheel is made for a CUDA build of torch; on any other one the
# operators have to be declared, so that it can be imported. Nothing here calls them.
OPERATORS = (
    *("nms", "qnms", "roi_align", "qroi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"),
    *(f"_{name}_backward" for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")),
)


def _call(module: torch.nn.Module, *inputs: torch.Tensor) -> Any:
    return module(*inputs)


@dataclass(frozen=True)
class Original:
    """Published code, and the arguments with which a block of ours is the same function.

    Attributes:
        block: Our class.
        args: The arguments of ours.
        path: Where the original's class is: "timm.layers:SEModule" in a package; "owner/name/file.py:Class" in a
            repository, which is no package, so that its file has to be given.
        their_args: The arguments of the original.
        inputs: Inputs of one call, in PyTorch's layout.
        outputs: The layouts of each returned array.
        names: The table of `flax_attn.convert.NAMES` that maps the original's names to ours; "" where they are equal.
        build: Makes the original from its class and arguments, where calling the class is not enough.
        call: Calls the original, where it wants more than the inputs.
        only: A part of the name, where a class has several originals of one path.
    """

    block: str
    args: Mapping[str, Any]
    path: str
    their_args: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Input, ...] = (Input((3, 32, 5, 7), MAP),)
    outputs: tuple[str | None, ...] = (MAP,)
    names: str = ""
    build: Callable[..., torch.nn.Module] = lambda cls, **args: cls(**args)
    call: Callable[..., Any] = _call
    only: str = ""

    @property
    def name(self) -> str:
        """Our class, theirs, and what tells apart several of the same two."""
        return f"{self.block}, {self.path}{f', {self.only}' if self.only else ''}"

    @property
    def in_repository(self) -> bool:
        """Whether the original is in no package, so that its file has to be given."""
        return "/" in self.path

    def load(self, file: str | Path | None = None) -> torch.nn.Module:
        """Makes the original, from a file if one is given.

        Raises:
            ImportError: The package is not installed, or the original is in a repository and no file is given.
        """
        place, _, cls = self.path.partition(":")
        declare_operators()
        if file is not None:
            module = load_file(file)
        elif self.in_repository:
            raise ImportError(f"{self.path} is in no package: give its file with --file")
        elif place.endswith(".py"):
            module = load_in_package(place)
        else:
            module = importlib.import_module(place)
        return self.build(getattr(module, cls), **self.their_args)


def with_momentum(momentum: float) -> Callable[..., torch.nn.Module]:
    """A `Original.build` that gives every BatchNorm another momentum: it is in no checkpoint, and packages disagree."""

    def build(cls: Any, **args: Any) -> torch.nn.Module:
        module: torch.nn.Module = cls(**args)
        for norm in module.modules():
            if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
                norm.momentum = momentum
        return module

    return build


def declare_operators() -> None:
    """Declares torchvision's operators where no library defines them."""
    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        library.define(f"{name}(Tensor x) -> Tensor")
    library.define("_cuda_version() -> int")
    _declared.append(library)  # what it declares is gone with it


_declared: list[Any] = []


def load_file(file: str | Path) -> ModuleType:
    """Imports a file on its own.

    Raises:
        ImportError: There is no such file.
    """
    if not Path(file).is_file():
        raise ImportError(f"there must be a Python file at {file}, got none")
    spec = importlib.util.spec_from_file_location(f"original_{Path(file).stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where decorators look for it
    spec.loader.exec_module(module)
    return module


def load_in_package(path: str) -> ModuleType:
    """Imports "package.folder.file.py" of an installed package alone, where the whole package wants more than torch.

    Raises:
        ImportError: The package is not installed.
    """
    package, *parts = path.removesuffix(".py").split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"the package {package} must be installed (tests/originals.txt), got none")
    return load_file(Path(spec.submodule_search_locations[0]).joinpath(*parts).with_suffix(".py"))
