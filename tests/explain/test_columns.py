"""Columns of plain vectors: occluded in one clip, exchanged between clips."""

import math

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.inspection import permutation_importance

from painseq.batch import Batch, Sample, collate
from painseq.data.streams import ActionUnitStream, CnnStream, LandmarkStream
from painseq.errors import PainseqError
from painseq.explain import (
    METHODS,
    Frames,
    column_bars,
    explain,
    named_columns,
    occlude_columns,
    permute_columns,
    randomised,
    time_methods,
)
from painseq.explain.columns import _stretched
from painseq.explain.methods import WITH_GRADIENTS
from painseq.heads import LSTM, HistogramBoosting, LinearProbe, RandomForest
from painseq.heads.head import Rows
from painseq.heads.standardised import Standardised
from painseq.model.pain_model import PainModel
from painseq.model.record import StreamRecord
from painseq.moments import Moments

UNITS = ActionUnitStream()
WIDTH, TELLING = UNITS.width, 3
TWO = ("no_pain", "pain")


def clips_of(count: int, frames: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, T, D) clips and classes, which column `TELLING` tells."""
    random = np.random.default_rng(seed)
    target = torch.from_numpy((random.random(count) < 0.3).astype(np.int64))
    x = torch.from_numpy(random.normal(size=(count, frames, WIDTH))).float()
    x[..., TELLING] += 3.0 * target[:, None]
    return x, target


@pytest.fixture(scope="module")
def trees():
    x, target = clips_of(200)
    torch.manual_seed(0)
    head = HistogramBoosting((WIDTH,), 2, "video", trees=10)
    head.fit_rows(Rows(x, torch.ones(x.shape[:2], dtype=torch.bool), target, torch.ones(len(x))), None)
    return head.eval(), x


@pytest.fixture
def units(make_record):
    """A model of action units with this head."""

    def make(head):
        stream = StreamRecord(UNITS.name, UNITS.identity)
        record = make_record(streams=(stream,), class_names=TWO, train_prior=(0.5, 0.5), in_shape=(WIDTH,))
        return PainModel(record, head.eval(), None, None)

    return make


def batches_of(x: torch.Tensor, target: torch.Tensor, of_batch: int = 16) -> list[Batch]:
    samples = [
        Sample(
            f"c{n}", f"s{n % 5}", int(target[n]), torch.ones(x.shape[1]).bool(), torch.arange(x.shape[1]), None, x[n]
        )
        for n in range(len(x))
    ]
    return [collate(samples[first : first + of_batch]) for first in range(0, len(samples), of_batch)]


def test_every_column_has_the_name_of_its_stream(units, make_model, backbone):
    model = units(LSTM((WIDTH,), 2))
    assert named_columns(model, [UNITS]) == {name: (n,) for n, name in enumerate(UNITS.columns)}
    width = math.prod(backbone.out_shape)
    both = make_model(backbone, LSTM((width + 2 * 3,), 2), ("cnn", "landmarks"))
    for streams in ([CnnStream(), LandmarkStream()], [CnnStream((width,)), LandmarkStream(3)]):
        columns = named_columns(both, streams)
        assert list(columns) == ["cnn", "x0", "y0", "x1", "y1", "x2", "y2"]
        assert columns["cnn"] == tuple(range(width)) and columns["y2"] == (width + 5,)
    alone = make_model(None, LSTM((4,), 2))
    assert list(named_columns(alone, [CnnStream((4,))])) == ["cnn 0", "cnn 1", "cnn 2", "cnn 3"]


@pytest.mark.parametrize("target", ["no_pain", "pain"])
def test_trees_miss_the_column_that_tells_the_classes_and_no_other(trees, units, target):
    head, x = trees
    model = units(head)
    # A clip of the rare class, since the mean over training looks like the other one.
    painful = x[int(x[:, :, TELLING].mean(dim=1).argmax())]
    clip = Frames(painful, torch.tensor([True, True, False, True]), torch.arange(4) / 4)
    found = occlude_columns(model, clip, named_columns(model, [UNITS]), target)
    name, fall = found.ranked[0]
    assert name == UNITS.columns[TELLING] and found.replaced_by == "training mean" and abs(fall) > 0.1
    unused = {int(column) % WIDTH for column in range(16 * WIDTH)} - {int(n) % WIDTH for n in head.feature}
    assert unused and all(found.falls[UNITS.columns[n]] == 0 for n in unused)
    hidden = clip.x.clone()
    hidden[:, TELLING] = x[..., TELLING].mean()
    with torch.no_grad():
        scores = [model.objective.log_scores(head(z[None], clip.present[None]))[0] for z in (clip.x, hidden)]
    number = TWO.index(target)
    assert fall == pytest.approx(float(scores[0][number] - scores[1][number]), abs=1e-5)


def test_a_head_that_keeps_no_mean_gets_that_of_the_clip(units):
    torch.manual_seed(1)
    model = units(LSTM((WIDTH,), 2).eval())
    clip = Frames(torch.randn(5, WIDTH), torch.tensor([1, 1, 1, 0, 1]).bool(), torch.arange(5) / 4)
    found = occlude_columns(model, clip, named_columns(model, [UNITS]), "pain")
    hidden = clip.x.clone()
    hidden[:, 0] = clip.x[clip.present, 0].mean()
    with torch.no_grad():
        falls = [model.head(z[None], clip.present[None])[0, 1] for z in (clip.x, hidden)]
    assert found.replaced_by == "clip mean"
    assert found.falls[UNITS.columns[0]] == pytest.approx(float(falls[0] - falls[1]), abs=1e-5)


def test_a_standardised_head_keeps_the_mean_of_training(units):
    head = Standardised(LSTM((WIDTH,), 2))
    assert head.training_mean() is None
    head.measure(Moments.of(5 + torch.randn(90, WIDTH).numpy()))
    model = units(head)
    clip = Frames(torch.randn(5, WIDTH), torch.ones(5).bool(), torch.arange(5) / 4)
    found = occlude_columns(model, clip, named_columns(model, [UNITS]), "pain")
    hidden = clip.x.clone()
    hidden[:, 0] = head.mean[0]
    with torch.no_grad():
        falls = [model.head(z[None], clip.present[None])[0, 1] for z in (clip.x, hidden)]
    assert found.replaced_by == "training mean"
    assert found.falls[UNITS.columns[0]] == pytest.approx(float(falls[0] - falls[1]), abs=1e-5)


def test_exchanged_columns_agree_with_scikit_learn(units):
    (train, target), (test, truth) = clips_of(300, 1), clips_of(120, 1, seed=1)
    torch.manual_seed(0)
    head = HistogramBoosting((WIDTH,), 2, "frame", trees=20, max_depth=2)
    head.fit_rows(Rows(train[:, 0], torch.ones(len(train)).bool(), target, torch.ones(len(train))), None)
    theirs = HistGradientBoostingClassifier(
        max_iter=20, learning_rate=0.05, max_depth=2, max_leaf_nodes=None, early_stopping=False
    ).fit(train[:, 0].numpy(), target.numpy())
    expected = permutation_importance(
        theirs, test[:, 0].numpy(), truth.numpy(), scoring="balanced_accuracy", n_repeats=20, random_state=0
    )
    model = units(head.eval())
    found = permute_columns(model, batches_of(test, truth), named_columns(model, [UNITS]), repeats=20)
    drops = {row.name: row.drop for row in found.drops}
    np.testing.assert_allclose([drops[name] for name in UNITS.columns], expected.importances_mean, atol=0.03)
    first = found.drops[0]
    assert first.name == UNITS.columns[TELLING] and first.interval.low > 0.2 and first.interval.subjects == 5
    assert first.drop == pytest.approx(np.mean(first.repeats)) and len(first.repeats) == 20
    assert (found.clips, found.subjects) == (120, 5)


@pytest.mark.parametrize("head", [LinearProbe, LSTM, lambda shape, k: RandomForest(shape, k, trees=3)])
def test_every_head_of_vectors_gets_columns_and_clips_without_label_or_face_do_not_count(units, head):
    x, target = clips_of(12)
    model = units(head((WIDTH,), 2).eval())
    (batch,) = batches_of(x, target)
    batch.target[0] = -1
    batch.mask[1] = False
    found = permute_columns(model, [batch], named_columns(model, [UNITS]), repeats=1)
    assert found.clips == 10 and {row.name for row in found.drops} == set(UNITS.columns)
    with pytest.raises(PainseqError, match=r"\b0\b"):
        permute_columns(model, [batch], named_columns(model, [UNITS]), repeats=0)


def test_the_course_of_another_clip_is_stretched_over_the_real_frames():
    batch = collate(
        [Sample("a", "s", 0, torch.tensor([1, 0, 1, 1, 1]).bool(), torch.arange(5), None, torch.zeros(5, 1))]
    )
    found = _stretched(batch, [torch.tensor([[1.0], [2.0]])])
    assert found[0, :, 0].tolist() == [1, 0, 1, 2, 2]
    assert _stretched(batch, [torch.arange(8.0)[:, None]])[0, :, 0].tolist() == [1, 0, 3, 5, 7]


def test_methods_with_gradients_are_refused_for_trees(trees, units):
    head, x = trees
    model = units(head)
    clip = Frames(x[0], torch.ones(4).bool(), torch.arange(4) / 4)
    assert time_methods(model) == ("frame_occlusion",) and not set(WITH_GRADIENTS) - set(METHODS)
    for method in ("integrated_gradients", "gradient_x_input", "saliency"):
        with pytest.raises(PainseqError, match=rf"{method}.*HistogramBoosting.*frame_occlusion"):
            explain(model, clip, method)
    assert explain(model, clip).method == "frame_occlusion"
    assert not torch.equal(randomised(model, "head", 0).head.value, head.value)
    assert randomised(model, "head", 0).head(clip.x[None], clip.present[None]).isfinite().all()


def test_the_mean_of_training_is_kept_with_the_trees(trees):
    head, x = trees
    torch.testing.assert_close(head.training_mean(), x.flatten(0, 1).mean(dim=0))
    again = HistogramBoosting((WIDTH,), 2)
    assert again.training_mean() is None
    state = head.state_dict()
    again.load_state_dict({name: value for name, value in state.items() if name != "mean"})
    assert again.training_mean() is None
    again.load_state_dict(state)
    assert torch.equal(again.training_mean(), head.training_mean())


def test_fifteen_bars_are_drawn_and_the_others_counted():
    rows = [(f"column{n}", 1.0 / (n + 1), (None, None) if n else (0.5, 1.5)) for n in range(18)]
    svg = column_bars(rows, "title", "svg").decode()
    assert "column14" in svg and "column15" not in svg and "3 more columns" in svg
    idle = column_bars([("column0", 1.0, (0.5, 1.5)), ("column1", 0.0, (None, None))], "title", "svg").decode()
    assert "column0" in idle and "column1" not in idle and "1 without" in idle
    assert column_bars(rows[:2], "title", "png").startswith(b"\x89PNG")
