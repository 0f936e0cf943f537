"""The results page."""

from typing import Any

from . import findings
from .options import PROGRAM, Options
from .outcomes import Report
from .rows import PROTOCOLS, Protocol
from .tables import APART, chance, map_table, results_table, twin_table

HEADINGS: dict[Protocol, str] = {
    "per_image": "A patch of its own for each image",
    "article": "The tutorial's patches and settings",
}
EXPLANATIONS: dict[Protocol, str] = {
    "per_image": "`--patches per_image`: whether an image has a patch, and where, is drawn for each image, in "
    "training anew in every epoch; about half of the images have one. Adam, at most {learning_rate:g} under a "
    "one-cycle schedule, batches of {batch_size} in random order; {epochs}.",
    "article": "`--patches article`: the place in the batch decides, so that a run knows seven patches in all and the "
    "answer can be had without looking: a pointing game here says little. Seven of ten images have a patch. Adam 1e-4, "
    "batches of 10 in file order; {epochs} (the tutorial: 50, on STL-10).",
}

NOWHERE = ("runs", "out", "known", "docs", "renew", "train")  # options that make no other figures

READING = """\
Each figure is the mean over the seeds, where there are several ± their standard deviation (of the sample). Errors are
the smallest over the epochs, as the tutorial reports them; accuracy is that after the last. *Pointing game*: the share
of test images with a patch in which the peak of the class activation map lies in it; chance is the patch's share of
the area, {chance:.3f}. *images/s* is the speed of training while these runs were made, with whatever else the machine
did then."""


def page(report: Report, *, picture: str) -> str:
    """The whole page.

    Args:
        report: what is shown.
        picture: the file name of the figure beside it.
    """
    protocols = [protocol for protocol in PROTOCOLS if any(run.protocol == protocol for run in report.outcomes)]
    parts = ["# Results", introduction(report), f"![errors, accuracy and pointing game]({picture})"]
    parts.append(READING.format(chance=chance(report)))
    for protocol in protocols:
        parts += [f"## {HEADINGS[protocol]}", explanation(report, protocol), results_table(report, protocol)]
        parts.append(findings.best_networks(report, protocol))
    for protocol in protocols:
        if any(run.protocol == protocol and run.side == "pytorch" for run in report.outcomes):
            parts += [f"## Ours and PyTorch's: {HEADINGS[protocol].lower()}", _TWINS, twin_table(report, protocol)]
            parts.append(findings.twins(report, protocol))
    parts += questions(report, protocols)
    parts += ["## Where all maps point", _MAPS.format(most=1 / chance(report))]
    for protocol in protocols:
        parts += [f"### {HEADINGS[protocol]}", map_table(report, protocol)]
    return "\n\n".join(parts) + "\n"


_TWINS = f"""\
Both start from the same weights and see the same images and patches in the same order, with the same learning rates;
dropout masks and rounding are each side's own. Compared are the seeds that both sides have. *apart* is the mean of our
smallest test errors minus that of PyTorch's, in standard deviations over the seeds (the root of the mean of both sides'
variances); within {APART} of them is what is asked for. Were both sides the same, about one network in five would lie
beyond with two seeds, and one in fourteen with three (Student's t)."""

_MAPS = """\
Ours. A peak beside the patch is a miss, however near: a network may know a patch by one of its edges. *Energy*: the
share of a map's positive part that lies in the patch, over the patch's share of the area; chance is 1, all of it
{most:.0f}. *Average precision*: of telling images with a patch from those without by the height of the peak; chance is
the share of images that have one. Maps of attention weights say how much attention each place receives. The mean over
the channels says little after a LayerNorm, with which multi-head attention ends: it is near 0 everywhere."""


def introduction(report: Report) -> str:
    """What was run, where, and how long it took."""
    hours, minutes = divmod(round(sum(run.seconds for run in report.outcomes) / 60), 60)
    height, width = report.images["image_size"]
    images = f"{report.images['images']} images of {height}x{width}"
    train, test = report.images["train"], report.images["test"]
    missing = report.planned - len(report.outcomes) - len(report.failed)
    lines = [
        f"Written by `{command(report.options)}`: {len(report.outcomes)} of {report.planned} runs, "
        + (f"{missing} not done yet, " if missing else "")
        + (f"failed: {', '.join(report.failed)}, " if report.failed else "")
        + f"in {hours} h {minutes:02d} min (without attempts that were killed).",
        f"{report.options['data']}, {images}: {train[1] - train[0]} train, {test[1] - test[0]} test.",
        f"Computed on: {' / '.join(dict.fromkeys(run.where for run in report.outcomes))}.",
    ]
    return "\n".join(lines)


def command(options: dict[str, Any]) -> str:
    """The command line that makes this report.

    Example:
        >>> command({"epochs": 3, "seeds": [0, 1], "rows": None})
        'python -m train report --epochs 3 --seeds 0 1'
    """
    words = [PROGRAM]
    for name, value in options.items():
        default = getattr(Options(), name)
        given = tuple(value) if isinstance(value, list) else value
        if given is None or given == default or name in NOWHERE:
            continue
        words += [f"--{name.replace('_', '-')}", *(map(str, given) if isinstance(given, tuple) else [str(given)])]
    return " ".join(words)


def explanation(report: Report, protocol: Protocol) -> str:
    """How the runs of a protocol were trained."""
    epochs = {len(run.test_errors) for run in report.outcomes if run.protocol == protocol}
    count = " or ".join(map(str, sorted(epochs))) + (" epoch" if epochs == {1} else " epochs")
    return EXPLANATIONS[protocol].format(**report.options | {"epochs": count})


def questions(report: Report, protocols: list[Protocol]) -> list[str]:
    """The two questions and what these runs answer."""
    parts = ["## Does multi-head attention find the patch once tokens are pixels?", _MULTI_HEAD]
    parts.append("\n".join(findings.multi_head(report, "per_image")))
    parts += ["## Is the tutorial's claim about CBAM borne out?", _CBAM]
    for protocol in protocols:
        parts.append(f"{HEADINGS[protocol]}: {findings.cbam(report, protocol)}")
    return parts


_MULTI_HEAD = """\
The tutorial reshapes the map so that its tokens are not pixels (`token_order="article"`), and remarks that this
network's attention does not highlight the patch. Here, with a patch of its own for each image, *found* means: of the
images with a patch, the place that receives most attention lies in it in half of them or more."""

_CBAM = f"""\
The tutorial calls CBAM the best of its networks, with the lowest test error, and says that the patch shows in its
attended map. By its own figures the convolutional multi-head network's test error is lower, 0.0143 against 0.0280. Two
networks are told apart where the means of their smallest test errors are more than {APART} standard deviations apart
(over the seeds, as above)."""
