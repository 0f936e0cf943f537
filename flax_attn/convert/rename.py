"""Renaming state_dict entries by runs of dotted path segments.

A table maps *their* runs to *ours*, ``{"ChannelGate": "channel_gate", "encoder.body": "conv"}``. A run matches whole
segments, anywhere in a path; the longest match wins. A run that maps to nothing is removed at the start of a path only
(``{"module": ""}`` removes DataParallel's prefix and leaves an inner ``module`` alone). The same table serves both
directions: loading reads it from left to right, saving from right to left.
"""

from collections.abc import Iterable, Mapping

Run = tuple[str, ...]
Table = list[tuple[Run, Run]]


def rename_all(names: Iterable[str], rename: Mapping[str, str] | None, *, invert: bool = False) -> dict[str, str]:
    """Maps every name to its new name.

    Raises:
        ValueError: two names become the same, all such pairs in one message.

    Example:
        >>> rename_all(["module.cbam.ChannelGate.mlp.1.bias"], {"module": "", "ChannelGate": "channel_gate"})
        {'module.cbam.ChannelGate.mlp.1.bias': 'cbam.channel_gate.mlp.1.bias'}
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
    pairs = [(_run(theirs), _run(ours)) for theirs, ours in rename.items()]
    if any(not theirs for theirs, _ in pairs):
        raise ValueError(f"rename must map runs of path segments, got an empty one in {dict(rename)}")
    prefix: Run = ()
    if invert:
        values = [ours for _, ours in pairs]
        if len(set(values)) < len(values):
            raise ValueError(f"rename must map to different runs to be read from right to left, got {dict(rename)}")
        prefix = next((theirs for theirs, ours in pairs if not ours), ())
        pairs = [(ours, theirs) for theirs, ours in pairs if ours]
    return sorted(pairs, key=lambda pair: -len(pair[0])), prefix


def _replace(path: Run, table: Table) -> Run:
    done: Run = ()
    start = 0
    while start < len(path):
        for old, new in table:
            if path[start : start + len(old)] == old and (new or start == 0):
                done += new
                start += len(old)
                break
        else:
            done += (path[start],)
            start += 1
    return done
