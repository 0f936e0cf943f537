"""The originals: code that others published, against which the blocks are held, with its weights loaded.

`torch_ref` is ours, so that a paper misread here would pass between it and `flax_attn`. The packages are pinned in
tests/originals.txt. ``python -m torch_ref originals`` compares, also with a file of a repository that is no package.
"""

from collections.abc import Sequence

from . import channel_gates, convolutions, maps, resnet, spatial_gates, tokens, windows
from .original import Original as Original

ORIGINALS = (
    *channel_gates.ORIGINALS,
    *spatial_gates.ORIGINALS,
    *convolutions.ORIGINALS,
    *tokens.ORIGINALS,
    *maps.ORIGINALS,
    *windows.ORIGINALS,
    *resnet.ORIGINALS,
)


def find_originals(names: Sequence[str] = (), *, in_repository: bool = False) -> list[Original]:
    """The originals of these classes of ours, of all by default: those in packages, or those in repositories.

    A name may also be an original's path, where a class has several.

    Raises:
        ValueError: A class has none, or there are several in repositories, which have one file each.
    """
    found = [
        one
        for one in ORIGINALS
        if one.in_repository == in_repository and (not names or {one.block, one.path} & set(names))
    ]
    where = "a repository" if in_repository else "a package"
    if missing := set(names) - {name for one in found for name in (one.block, one.path)}:
        known = sorted({one.block for one in ORIGINALS if one.in_repository == in_repository})
        raise ValueError(
            f"NAME must be a class with an original in {where}, among {', '.join(known)}, got {', '.join(missing)}"
        )
    if in_repository and len({one.path for one in found}) != 1:
        raise ValueError(
            f"--file needs one NAME with one original in a repository, or its path, got {', '.join(names) or 'none'}"
        )
    return found
