"""The page, its sentences and its figure."""

import pytest

from train.report import findings
from train.report.page import page
from train.report.picture import compose, save_picture
from train.report.tables import best_map

from .made import outcome, report

WEIGHTS = "attn1.attention.weights"
TUTORIALS = ("cnn", "multi_head-article", "conv_multi_head", "cbam")


def test_attention_finds_the_patch_or_does_not():
    article = outcome("multi_head-article", 0.4, **{WEIGHTS: 0.1})
    sine = [outcome("multi_head-sine", 0.2, pointing=0.0, seed=n, **{WEIGHTS: 0.4 + n / 5}) for n in (0, 1)]
    lines = findings.multi_head(report(article, *sine, outcome("multi_head-pixels", 0.1)), "per_image")
    assert [line.split(":")[1].split(".")[0] for line in lines] == [
        " **not found**",
        " not trained yet",  # it has no attention weights
        " **found**",
        " not trained yet",
    ]
    assert "Most attention is received within the patch in 0.500 ± 0.141 of the images with one" in lines[2]
    assert "the mean of the attended map peaks there in (no such map), the class activation map in 0.000" in lines[2]


def test_the_map_that_points_best_is_named():
    runs = [outcome("multi_head-sine", 0.2, pointing=0.1, **{WEIGHTS: value}) for value in (0.5, 0.7)]
    name, found = best_map(runs)
    assert (name, found.mean) == (f"`{WEIGHTS}`", 0.6)


def tutorials(**errors):
    """Two seeds of each of the tutorial's networks, 0.02 apart."""
    given = {name: errors.get(name, 0.5) for name in TUTORIALS}
    return [
        outcome(name, error + seed / 50, seed=seed, attended_mean=0.93)
        for name, error in given.items()
        for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (0.1, "**yes**: CBAM's error is the smallest, -7.07 sd from that of convolutional multi-head (CBAM, channel "),
        (0.19, "**not told apart**: CBAM lies -0.71 sd from convolutional multi-head"),
        (0.22, "**not told apart**: CBAM lies +1.41 sd from convolutional multi-head"),
        (0.3, "**no**: the error of convolutional multi-head is smaller, CBAM's is +7.07 sd from it"),
    ],
)
def test_cbams_place_among_the_tutorials_networks(error, answer):
    found = findings.cbam(report(*tutorials(conv_multi_head=0.2, cbam=error)), "per_image")
    assert found.startswith(answer)
    assert "peaks in the patch in 0.930 ± 0.000 of the images" in found


def test_what_cannot_be_told_yet():
    one_seed = [run for run in tutorials(cbam=0.1) if run.seed == 0]
    assert findings.cbam(report(*one_seed), "per_image").startswith("one seed does not tell; CBAM is number 1 of 4")
    assert "not all four" in findings.cbam(report(*tutorials()[:-2]), "per_image")
    assert findings.best_networks(report(outcome("cnn", 0.1, side="pytorch")), "per_image") == (
        "None of our runs is done yet."
    )


def test_the_best_network_and_the_best_pointer():
    runs = [outcome("cnn", 0.3, pointing=0.99), outcome("cbam", 0.1, pointing=0.2)]
    assert findings.best_networks(report(*runs), "per_image") == (
        "Among the networks with most seeds (1) CBAM, channel gate alone has the smallest test error, 0.1; its class "
        "activation map peaks in the patch in 0.200 of the images with one. That of CNN alone points best, in 0.990."
    )
    second = outcome("cnn", 0.3, pointing=0.97, seed=1)  # one seed of CBAM is no match for two
    assert findings.best_networks(report(*runs, second), "per_image").startswith(
        "Among the networks with most seeds (2) CNN alone has the smallest test error, 0.3"
    )


def test_networks_that_are_not_within_their_twins_spread_are_named():
    def runs(row, *errors):
        sides = [("ours", 0), ("ours", 1), ("pytorch", 0), ("pytorch", 1)]
        return [outcome(row, error, side=side, seed=n) for (side, n), error in zip(sides, errors, strict=True)]

    near, far = runs("cnn", 0.1, 0.2, 0.1, 0.3), runs("cbam", 0.1, 0.2, 0.8, 0.9)
    within = "Within 2 standard deviations of their twin"
    assert findings.twins(report(*near, *far), "per_image") == (
        f"{within}: 1 of 2 networks, not CBAM, channel gate alone."
    )
    assert findings.twins(report(*near), "per_image") == f"{within}: 1 of 1 networks."
    assert findings.twins(report(*near, *far[:1]), "per_image") == (
        f"{within}: 1 of 1 networks. With fewer than two seeds on both sides: CBAM, channel gate alone."
    )
    assert "With one seed" in findings.twins(report(*near[:3]), "per_image")  # PyTorch's second is not done


def test_the_page_says_what_was_run_and_what_is_missing():
    runs = outcome("cnn", 0.2), outcome("cnn", 0.3, protocol="article")
    made = page(report(*runs, planned=9, failed=["per_image/cbam/ours/seed-0"]), picture="a.png")
    for part in (
        "`python -m train report --data npz:photos.npz --epochs 2 --seeds 0 1`: 2 of 9 runs, 6 not done yet, failed: "
        "per_image/cbam/ours/seed-0, in 0 h 02 min (without attempts that were killed).",
        "npz:photos.npz, 50 images of 32x36: 40 train, 10 test.",
        "Computed on: a processor; jax 1.2.3.",
        "![errors, accuracy and pointing game](a.png)",
        "at most 0.001 under a one-cycle schedule, batches of 10 in random order; 2 epochs.",
        "That of CNN alone points best, in 0.900.",
    ):
        assert part in made
    assert "PyTorch's: a patch" not in made  # no twin was trained


def test_the_figure_shows_every_run_where_its_figures_are(tmp_path):
    runs = report(
        outcome("cnn", 0.2, pointing=0.7, accuracy=0.9),
        outcome("cnn", 0.3, side="pytorch", pointing=0.6, accuracy=0.8),
        outcome("cbam", 0.1, protocol="article", pointing=0.5, accuracy=0.75),
    )
    figure = compose(runs)
    shown = [{tuple(line.get_xdata()) for line in ax.lines if len(line.get_xdata())} for ax in figure.axes]
    chance = (16 * 16 / (32 * 36),) * 2
    assert shown == [
        {(0.2,), (0.3,)},
        {(0.9,), (0.8,)},
        {(0.7,), (0.6,), chance},
        {(0.1,)},
        {(0.75,)},
        {(0.5,), chance},
    ]
    for column, runs_of_column in enumerate(((0.1, 0.3), (0.75, 0.9), (0.5, 0.7))):
        above, below = figure.axes[column], figure.axes[column + 3]
        assert above.get_xlim() == below.get_xlim()
        assert above.get_xlim()[0] < runs_of_column[0] < runs_of_column[1] < above.get_xlim()[1]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["CNN alone", "CBAM, channel gate alone"]
    save_picture(tmp_path / "a.png", runs)
    assert (tmp_path / "a.png").stat().st_size > 10_000
