"""What the figures say to two questions: the tutorial's remark on multi-head attention, and its claim about CBAM."""

from collections.abc import Sequence

from .outcomes import Outcome, Report, spread
from .rows import ROWS, Protocol, RowName
from .tables import ACTIVATION, APART, deviations, distance, share

FOUND = 0.5  # of the images with a patch: the peak lies in it more often than not
OVER_PIXELS: tuple[RowName, ...] = ("multi_head-pixels", "multi_head-sine", "multi_head-learned")
TUTORIALS: tuple[RowName, ...] = tuple(name for name, row in ROWS.items() if row.tutorial)


def multi_head(report: Report, protocol: Protocol) -> list[str]:
    """Does multi-head attention find the patch once tokens are pixels? A line per row, and the answer first."""
    rows = [name for name in ("multi_head-article", *OVER_PIXELS) if report.of(name, protocol)]
    found = {name: best_map(report.of(name, protocol)) for name in rows}
    over_pixels = [name for name in rows if name in OVER_PIXELS]
    if not over_pixels:
        return ["no runs of multi-head attention over pixels."]
    pointing = max(found[name][1] for name in over_pixels)
    lines = [f"**{'Yes' if pointing >= FOUND else 'No'}** (yes: the peak of one of its maps lies in the patch in half "]
    lines[0] += "of the images with one, or more)."
    for name in rows:
        runs = report.of(name, protocol)
        kind, _ = found[name]
        lines.append(
            f"- {ROWS[name].title}: test accuracy {share(spread(run.test_accuracy for run in runs))}; the class "
            f"activation map peaks in the patch in {share(spread(run.pointing() for run in runs))}, of its maps best "
            f"{_called(kind)}, in {share(spread(run.pointing(kind) for run in runs))}."
        )
    return lines


def best_map(runs: Sequence[Outcome]) -> tuple[str, float]:
    """The map that points best on average, and how often it does."""
    kinds = dict.fromkeys(kind for run in runs for kind in run.maps)
    means = {kind: found.mean for kind in kinds if (found := spread(run.pointing(kind) for run in runs))}
    kind = max(means, key=lambda kind: means[kind], default=ACTIVATION)
    return kind, means.get(kind, 0.0)


def cbam(report: Report, protocol: Protocol) -> list[str]:
    """Is CBAM's test error the smallest of the tutorial's four networks, and does its attended map show the patch?"""
    order = {
        name: found.mean
        for name in TUTORIALS
        if (found := spread(run.min_test_error for run in report.of(name, protocol)))
    }
    if "cbam" not in order or len(order) < 2:
        return ["too few runs to tell."]
    ranked = sorted(order, key=lambda name: order[name])
    ours = report.of("cbam", protocol)
    place = ranked.index("cbam") + 1
    other = next(name for name in ranked if name != "cbam")
    apart = distance(ours, report.of(other, protocol))
    far = deviations(apart) or "not known how far"
    clear = "" if apart is None or abs(apart) > APART else f", within {APART} sd of it"
    mean = share(spread(run.pointing("attended_mean") for run in ours))
    return [
        f"**{'Yes' if place == 1 else 'No'}**: by its smallest test error CBAM is number {place} of {len(ranked)} "
        f"({'; '.join(f'{ROWS[name].title} {order[name]:.3g}' for name in ranked)}); from "
        f"{ROWS[other].title}, the {'next' if place == 1 else 'first'}, it is {far} "
        f"apart{clear}. The mean of its attended map peaks in the patch in {mean} of the images with one, its class "
        f"activation map in {share(spread(run.pointing() for run in ours))}."
    ]


def best_network(report: Report, protocol: Protocol) -> str:
    """Which network's class activation map points best."""
    means = {
        name: found
        for name in ROWS
        if (found := spread(run.pointing() for run in report.of(name, protocol))) is not None
    }
    name = max(means, key=lambda name: means[name].mean)
    return f"The class activation map of {ROWS[name].title} points best: {share(means[name])}."


def twins(report: Report, protocol: Protocol) -> str:
    """Whether ours and PyTorch's are within two seed standard deviations."""
    pairs = {name: (report.of(name, protocol), report.of(name, protocol, "pytorch")) for name in ROWS}
    found = {name: distance(*pair) for name, pair in pairs.items()}
    told = {name: apart for name, apart in found.items() if apart is not None}
    if not told:
        return "Too few seeds to tell how far ours and PyTorch's are apart."
    far = [ROWS[name].title for name, apart in told.items() if not abs(apart) <= APART]
    line = f"{len(told) - len(far)} of {len(told)} networks lie within {APART} sd of their twin"
    return f"{line}; not {', '.join(far)}." if far else f"{line}."


def _called(kind: str) -> str:
    return f"`{kind}`" if "." in kind else f"the {kind.replace('_', ' ')}"
