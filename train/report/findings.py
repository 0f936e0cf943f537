"""What the figures say: which networks are best, whether the twins agree, and two questions about the tutorial."""

from collections.abc import Sequence

from .outcomes import Outcome, Report, spread
from .rows import ROWS, Protocol, RowName
from .tables import APART, both, deviations, distance, share

FOUND = 0.5  # of the images with a patch: the peak lies in it more often than not
WEIGHTS = "attn1.attention.weights"  # of multi_head, as it records them
MULTI_HEAD: tuple[RowName, ...] = ("multi_head-article", "multi_head-pixels", "multi_head-sine", "multi_head-learned")
TUTORIALS: tuple[RowName, ...] = tuple(name for name, row in ROWS.items() if row.tutorial)


def multi_head(report: Report, protocol: Protocol) -> list[str]:
    """Does multi-head attention find the patch? A line for each way of making tokens."""
    lines = []
    for name in MULTI_HEAD:
        runs = report.of(name, protocol)
        received = spread(run.pointing(WEIGHTS) for run in runs)
        if received is None:
            lines.append(f"- {ROWS[name].title}: not trained yet.")
            continue
        answer = "found" if received.mean >= FOUND else "not found"
        lines.append(
            f"- {ROWS[name].title}: **{answer}**. Most attention is received within the patch in {share(received)} of "
            f"the images with one; the mean of the attended map peaks there in {points(runs, 'attended_mean')}, the "
            f"class activation map in {points(runs)}. Test accuracy "
            f"{share(spread(run.test_accuracy for run in runs))}."
        )
    return lines


def cbam(report: Report, protocol: Protocol) -> str:
    """Is CBAM's test error the smallest of the tutorial's four networks, and does its attended map show the patch?"""
    runs = {name: report.of(name, protocol) for name in TUTORIALS}
    order = {name: found.mean for name in TUTORIALS if (found := spread(run.min_test_error for run in runs[name]))}
    if len(order) < len(TUTORIALS):
        return "not all four networks are trained yet."
    first, second, *_ = ranked = sorted(order, key=lambda name: order[name])
    other = second if first == "cbam" else first
    apart = distance(runs["cbam"], runs[other])
    if apart is None:
        answer = f"one seed does not tell; CBAM is number {ranked.index('cbam') + 1} of {len(ranked)}"
    elif abs(apart) <= APART:
        answer = f"**not told apart**: CBAM lies {deviations(apart)} from {ROWS[other].title}"
    elif first == "cbam":
        answer = f"**yes**: CBAM's error is the smallest, {deviations(apart)} from that of {ROWS[other].title}"
    else:
        answer = f"**no**: the error of {ROWS[other].title} is smaller, CBAM's is {deviations(apart)} from it"
    errors = "; ".join(f"{ROWS[name].title} {order[name]:.3g}" for name in ranked)
    mean, activation = points(runs["cbam"], "attended_mean"), points(runs["cbam"])
    return (
        f"{answer} ({errors}). The mean of its attended map peaks in the patch in {mean} of the images with one, its "
        f"class activation map in {activation}."
    )


def best_networks(report: Report, protocol: Protocol) -> str:
    """The network with the smallest test error, and the one whose class activation map points best."""
    runs = {name: found for name in ROWS if (found := report.of(name, protocol))}
    seeds = max(map(len, runs.values()), default=0)
    runs = {name: found for name, found in runs.items() if len(found) == seeds}  # a lucky seed is no better network
    errors = {name: found.mean for name in runs if (found := spread(run.min_test_error for run in runs[name]))}
    pointing = {name: found.mean for name in runs if (found := spread(run.pointing() for run in runs[name]))}
    if not errors or not pointing:
        return "None of our runs is done yet."
    best, pointer = min(errors, key=lambda name: errors[name]), max(pointing, key=lambda name: pointing[name])
    return (
        f"Among the networks with most seeds ({seeds}) {ROWS[best].title} has the smallest test error, "
        f"{errors[best]:.3g}; its class activation map peaks in the patch in {points(runs[best])} of the images with "
        f"one. That of {ROWS[pointer].title} points best, in {points(runs[pointer])}."
    )


def twins(report: Report, protocol: Protocol) -> str:
    """Whether ours and PyTorch's are within two seed standard deviations."""
    rows = [name for name in ROWS if report.of(name, protocol)]
    told = {name: apart for name in rows if (apart := distance(*both(report, name, protocol))) is not None}
    if not told:
        return "With one seed there is no standard deviation to measure by."
    far = [ROWS[name].title for name, apart in told.items() if not abs(apart) <= APART]
    line = f"Within {APART} standard deviations of their twin: {len(told) - len(far)} of {len(told)} networks"
    line += f", not {'; '.join(far)}." if far else "."
    untold = [ROWS[name].title for name in rows if name not in told]
    return f"{line} With fewer than two seeds on both sides: {'; '.join(untold)}." if untold else line


def points(runs: Sequence[Outcome], kind: str = "class_activation") -> str:
    """How often a map points into the patch, in words."""
    return share(spread(run.pointing(kind) for run in runs)) or "(no such map)"
