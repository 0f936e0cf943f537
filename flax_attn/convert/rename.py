"""Renaming state_dict entries by runs of dotted path segments.

A table maps *their* runs to *ours*, ``{"ChannelGate": "channel_gate", "encoder.body": "conv"}``. A run matches whole
segments, anywhere in a path; the longest match wins. A run that maps to nothing is removed once, at the start of a path
(``{"module": ""}`` removes DataParallel's prefix and leaves an inner ``module`` alone); the names that PyTorch's other
wrappers insert, `INSERTED`, are removed wherever they stand. Several such runs may be there, in any order. The same
table serves both directions: loading reads it from left to right, saving from right to left, where the removed runs
become a prefix, in the order of the table.
"""

from collections.abc import Iterable, Mapping

Run = tuple[str, ...]
Table = list[tuple[Run, Run]]

# Of torch.compile, activation checkpointing and FSDP, which wrap modules within others too.
INSERTED = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
WRAPPERS = ("module", *INSERTED)  # the first is that of DataParallel and AveragedModel


def rename_all(names: Iterable[str], rename: Mapping[str, str] | None, *, invert: bool = False) -> dict[str, str]:
    """Maps every name to its new name.

    Raises:
        ValueError: two names become the same, all such pairs in one message.

    Example:
        >>> rename_all(["module.cbam.ChannelGate.mlp.1.bias"], {"module": "", "ChannelGate": "channel_gate"})
        {'module.cbam.ChannelGate.mlp.1.bias': 'cbam.channel_gate.mlp.1.bias'}
        >>> rename_all(["_orig_mod.module.a._checkpoint_wrapped_module.bias"], dict.fromkeys(WRAPPERS, ""))
        {'_orig_mod.module.a._checkpoint_wrapped_module.bias': 'a.bias'}
    """
    table, prefix = _table(rename or {}, invert)
    renamed = {name: ".".join((*prefix, *_replace(_run(name), table))) for name in names}
    sources: dict[str, list[str]] = {}
    for old, new in renamed.items():
        sources.setdefault(new, []).append(old)
    collisions = [f"{new!r} from {old}" for new, old in sources.items() if len(old) > 1]
    if collisions:
        raise ValueError(f"rename must give different names, got {'; '.join(collisions)}")
    return renamed


def _run(dotted: str) -> Run:
    return tuple(segment for segment in dotted.split(".") if segment)


def _table(rename: Mapping[str, str], invert: bool) -> tuple[Table, Run]:
    """The pairs in the order in which they are tried, and the prefix that saving adds to every path."""
    if not isinstance(rename, Mapping) or not all(isinstance(run, str) for pair in rename.items() for run in pair):
        raise ValueError(f"rename must map strings to strings, got {rename!r}")
    pairs = [pair for theirs, ours in rename.items() for pair in _pairs(_run(theirs), _run(ours))]
    if any(not theirs for theirs, _ in pairs):
        raise ValueError(f"rename must map runs of path segments, got an empty one in {dict(rename)}")
    prefix: Run = ()
    if invert:
        values = [ours for _, ours in pairs]
        kept = [ours for ours in values if ours]
        if len(set(kept)) < len(kept):
            raise ValueError(f"rename must map to different runs to be read from right to left, got {dict(rename)}")
        prefix = tuple(segment for theirs, ours in pairs if not ours for segment in theirs)
        pairs = [(ours, theirs) for theirs, ours in pairs if ours]
    return sorted(pairs, key=lambda pair: -len(pair[0])), prefix


def _pairs(theirs: Run, ours: Run) -> Table:
    """The pair, or one for each wrapper that it removes, as wrappers may be there in any order."""
    if not ours and set(theirs) <= {*WRAPPERS} and set(theirs) & {*INSERTED}:
        return [((segment,), ()) for segment in theirs]
    return [(theirs, ours)]


def _replace(path: Run, table: Table) -> Run:
    inserted = {segment for old, new in table if not new and set(old) <= {*INSERTED} for segment in old}
    path = tuple(segment for segment in path if segment not in inserted)
    done: Run = ()
    removed: set[Run] = set()
    start = 0
    while start < len(path):
        for old, new in table:
            if path[start : start + len(old)] == old and (new or (not done and old not in removed)):
                removed |= set() if new else {old}
                done += new
                start += len(old)
                break
        else:
            done += (path[start],)
            start += 1
    return done


def wrappers_in(names: Iterable[str]) -> list[str]:
    """The wrappers whose names are left in ``names``: those that begin all of them, or stand in any.

    Example:
        >>> wrappers_in(["module.a.bias", "module.b._orig_mod.bias"]), wrappers_in(["module.a.bias", "b.bias"])
        (['module', '_orig_mod'], [])
    """
    runs = [_run(name) for name in names]
    inside = [name for name in INSERTED if any(name in run for run in runs)]
    outer = [next((segment for segment in run if segment not in INSERTED), "") for run in runs]
    return [*(["module"] if outer and set(outer) == {"module"} else []), *inside]
