"""The page, its sentences and its figure."""

import numpy as np
from PIL import Image

from train.report import findings
from train.report.page import page
from train.report.picture import save_picture

from .made import outcome, report


def test_attention_over_pixels_finds_the_patch_or_does_not():
    article = outcome("multi_head-article", 0.4, pointing=0.03)
    blind, seeing = outcome("multi_head-pixels", 0.3, pointing=0.2), outcome("multi_head-sine", 0.2, weights=0.7)
    answer = findings.multi_head(report(article, blind), "per_image")
    assert answer[0].startswith("**No**")
    assert "in article order: test accuracy 0.970; the class activation map peaks in the patch in 0.030" in answer[1]
    answer = findings.multi_head(report(article, blind, seeing), "per_image")
    assert answer[0].startswith("**Yes**")
    assert len(answer) == 4
    assert "no runs" in findings.multi_head(report(article), "per_image")[0]


def test_the_map_that_points_best_is_named():
    runs = [outcome("multi_head-sine", 0.2, pointing=0.1, **{"attn1.attention.weights": value}) for value in (0.5, 0.7)]
    assert findings.best_map(runs) == ("attn1.attention.weights", 0.6)


def test_cbams_place_among_the_tutorials_networks():
    others = outcome("cnn", 0.3), outcome("conv_multi_head", 0.1), outcome("cbam_spatial", 0.01)
    (answer,) = findings.cbam(report(*others, outcome("cbam", 0.2, attended_mean=0.93)), "per_image")
    assert answer.startswith("**No**: by its smallest test error CBAM is number 2 of 3 (convolutional multi-head 0.1; ")
    assert "peaks in the patch in 0.930 of the images" in answer
    (answer,) = findings.cbam(report(*others, outcome("cbam", 0.05)), "per_image")
    assert answer.startswith("**Yes**")
    assert "too few" in findings.cbam(report(outcome("cbam", 0.1)), "per_image")[0]


def test_networks_that_are_not_within_their_twins_spread_are_named():
    def runs(row, *errors):
        pairs = zip(("ours", "ours", "pytorch", "pytorch"), errors, strict=True)
        return [outcome(row, error, side=side) for side, error in pairs]

    near, far = runs("cnn", 0.1, 0.2, 0.1, 0.3), runs("cbam", 0.1, 0.2, 0.8, 0.9)
    assert findings.twins(report(*near, *far), "per_image") == (
        "1 of 2 networks lie within 2 sd of their twin; not CBAM, channel gate alone."
    )
    assert findings.twins(report(*near), "per_image") == "1 of 1 networks lie within 2 sd of their twin."
    assert "Too few seeds" in findings.twins(report(*near[::2]), "per_image")


def test_the_page_says_what_was_run_and_what_is_missing():
    made = page(report(outcome("cnn", 0.2), outcome("cnn", 0.3, protocol="article"), planned=9), picture="a.png")
    for part in (
        "`python -m train report --data npz:photos.npz --epochs 2 --seeds 0 1`: 2 runs of 9, 7 not done yet, ",
        ", 0 h 02 min.",
        "npz:photos.npz, 50 images of 32x36: 40 train, 10 test.",
        "Computed on: a processor; jax 1.2.3.",
        "![errors, accuracy and pointing game](a.png)",
        "at most 0.001 under a one-cycle schedule, batches of 10 in random order; 2 epochs.",
        "The class activation map of CNN alone points best: 0.900.",
    ):
        assert part in made
    assert "PyTorch's: a patch" not in made  # no twin was trained


def test_the_figure_shows_every_side_in_its_colour(tmp_path):
    runs = [outcome("cnn", 0.2), outcome("cnn", 0.3, side="pytorch"), outcome("cbam", 0.1, protocol="article")]
    save_picture(tmp_path / "a.png", report(*runs))
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3)
    for colour in ((255, 127, 14), (31, 119, 180)):
        assert (pixels == colour).all(1).any()
