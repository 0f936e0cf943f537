"""Scores of whole networks."""

import dataclasses
import json
import math
from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from flax_attn.testing import relative_error, tolerance
from train.config import PatchConfig
from train.data import Source
from train.look import finish, save_scores
from train.look.observe import observe
from train.look.scores import Localisation, combine, fixed_patches, localise, score
from train.tasks import task_of
from train.tasks.patch import TEST, WHITE, Patches, build_network, painted, split_key

HEIGHT, WIDTH = 20, 28  # of the images; maps have 5 by 7 places


def test_batches_leave_no_image_out_and_count_none_twice(images, monkeypatch):
    network = build_network(PatchConfig(network="cnn"), HEIGHT, WIDTH)
    seven, patches = (
        images(7),
        Patches(*np.array([[1, 0, 1, 1, 0, 1, 1], [0, 0, 3, 1, 2, 2, 3], [5, 0, 9, 11, 3, 0, 7]])),
    )
    monkeypatch.setattr("train.look.scores.AT_ONCE", 3 * HEIGHT * WIDTH)
    scores = localise(network, source_of(seven), patches)
    seen = observe(nnx.split(network), painted(seven, patches))
    for name, maps in (("attended_mean", seen.attended.mean(-1)), ("class_activation", seen.activation)):
        expected = combine(score(np.asarray(maps), patches), patches.label)
        assert (expected.patched, expected.images) == (5, 7)
        assert relative_error(vector(scores[name]), vector(expected)) <= tolerance("output", "float32")


def source_of(images):
    """A source that tests on all images."""
    return Source("all", images, test=range(len(images)))


def vector(scores):
    return np.array(dataclasses.astuple(scores))


@pytest.mark.parametrize("rule", ["per_image", "article"])
def test_patches_are_those_that_a_run_tests_with(rule, images):
    source = Source("noise", images(55) // 2)  # none as bright as a patch
    config = PatchConfig(patches=rule, batch_size=4, seed=5)
    indices = np.asarray(source.test)
    patches = fixed_patches(config, source)
    key = split_key(jax.random.key(5), TEST, 0)
    draw = jax.jit(partial(task_of(config).draw, training=False))
    batches = [indices[i : i + 4] for i in range(0, 11, 4)]
    drawn = [draw(source.records[batch], None, batch, key) for batch in batches]
    x, y = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    assert np.array_equal(patches.label, y)
    assert np.array_equal(np.asarray(painted(source.records[indices], patches)) == WHITE, x == WHITE)
    assert 0 < y.sum() < 11


def test_a_run_ends_with_scores_and_a_picture(tmp_path, images):
    config, source = PatchConfig(network="cbam_spatial", batch_size=4), Source("noise", images(45))
    (line,) = finish(tmp_path, config, task_of(config), build_network(config, HEIGHT, WIDTH), source)
    written = json.loads((tmp_path / "localisation.json").read_text())
    assert written["image_size"] == [HEIGHT, WIDTH]
    assert set(written["maps"]) == {"class_activation", "attended_mean", "attn1.spatial_gate.gate"}
    scores = written["maps"]["class_activation"]
    assert f"in {scores['pointing']:.3f} of {scores['patched']} test images" in line
    assert (tmp_path / "attention.png").stat().st_size > 10_000


def test_scores_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """A report reads them, and a run that is killed while it writes them is finished by its resume."""
    scores = {"some": Localisation(0.5, 2.0, 0.5, 1, 3)}
    save_scores(tmp_path / "a.json", scores, 17, 19)
    before = (tmp_path / "a.json").read_text()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_scores(tmp_path / "a.json", scores, 23, 29)
    assert (tmp_path / "a.json").read_text() == before


def test_no_number_is_written_as_null(tmp_path):
    save_scores(tmp_path / "a.json", {"some": Localisation(math.nan, 2.0, 0.5, 0, 3)}, 17, 19)
    written = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert written["maps"]["some"] == {
        "pointing": None,
        "energy": 2.0,
        "average_precision": 0.5,
        "patched": 0,
        "images": 3,
    }
