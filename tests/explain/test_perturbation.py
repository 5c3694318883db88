"""Deletion and insertion, against a second implementation that goes cell by cell."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

from painseq.data.labels import Scale
from painseq.explain import Frames, Scorer, features_of
from painseq.explain.by_input import baseline_of
from painseq.explain.perturbation import model_outputs, perturbation_curves

SCALE = {"scale": Scale("pspi", 0.0, 16.0), "class_names": (), "loss": "mse"}


def probability(model, batch_of, clip, target):
    """As the model itself says it of a batch of one."""
    outputs = model(batch_of(clip))
    if model.scale is not None:
        return float(outputs.squeeze() if model.head.level == "video" else outputs[0, clip.present].mean())
    if model.head.level == "frame":
        return float(outputs[0, clip.present].softmax(dim=-1).mean(dim=0)[target])
    return float(outputs[0].softmax(dim=-1)[target])


def one_by_one(model, batch_of, clip, maps, target, steps):
    """The curves, with a list of cells and a loop over them."""
    side = clip.x.shape[-1]
    cell = -(-side // 16)
    colour = clip.x[clip.present].float().mean(dim=(0, 2, 3))
    cells = []
    for t in clip.present.nonzero()[:, 0].tolist():
        for top in range(0, side, cell):
            for left in range(0, side, cell):
                place = (t, slice(top, top + cell), slice(left, left + cell))
                cells.append((float(maps[place].sum()), place))
    cells.sort(key=lambda one: -one[0])
    curves = []
    for of_deletion in (True, False):
        curve = []
        for number in np.linspace(0, len(cells), steps + 1).round().astype(int):
            x = clip.x.float().clone()
            for _, (t, rows, columns) in cells[:number] if of_deletion else cells[number:]:
                x[t, :, rows, columns] = colour[:, None, None]
            with torch.no_grad():
                curve.append(probability(model, batch_of, dataclasses.replace(clip, x=x), target))
        curves.append(curve)
    return curves


@pytest.mark.parametrize(
    ("head", "record"),
    [("frame_ann", {}), ("lstm", {}), ("two_stream", {}), ("vivit", {}), ("frame_ann", SCALE)],
)
def test_curves_are_those_of_a_loop_over_cells(made, head, record, batch_of):
    model, clip = made(head, 1 if record else 3, **record)
    target = 0 if record else 2
    maps = torch.randn(clip.x[:, 0].shape, generator=torch.Generator().manual_seed(0))
    found = perturbation_curves(Scorer(model, clip, target), maps, steps=5)
    deletion, insertion = one_by_one(model, batch_of, clip, maps, target, 5)
    np.testing.assert_allclose(found.deletion, deletion, atol=2e-5)
    np.testing.assert_allclose(found.insertion, insertion, atol=2e-5)
    np.testing.assert_allclose(found.shares, np.linspace(0, 1, 6), atol=1e-3)
    assert found.gain == pytest.approx(trapezoid(insertion, found.shares) - trapezoid(deletion, found.shares), abs=1e-4)


def test_curves_begin_and_end_at_the_clip_and_at_nothing(made):
    model, clip = made("lstm")
    scorer = Scorer(model, clip)
    found = perturbation_curves(scorer, torch.rand(clip.x[:, 0].shape))
    with torch.no_grad():
        whole, nothing = (float(model_outputs(scorer, x[None])[0]) for x in (scorer.x, baseline_of(scorer)))
    assert found.deletion[0] == pytest.approx(whole, abs=1e-6) and found.insertion[-1] == found.deletion[0]
    # Masked frames stay as they are, and count for nothing.
    assert found.deletion[-1] == pytest.approx(nothing, abs=1e-5) and found.insertion[0] == found.deletion[-1]


def test_the_best_order_of_frames_beats_every_other(made):
    """The mean of the frames' probabilities is a sum over them, so each frame's own share is the best order."""
    model, crops = made("frame_ann")
    clip = features_of(model, crops)
    scorer = Scorer(model, clip)
    with torch.no_grad():
        of_frames = model.head(clip.x[None].float(), clip.present[None])[0].softmax(dim=-1)[:, scorer.target]
    best = perturbation_curves(scorer, of_frames)
    assert best.gain > 0
    worst = perturbation_curves(scorer, -of_frames)
    # What is left when the least important go is what the most important bring in.
    assert worst.gain == pytest.approx(-best.gain, abs=1e-5)
    for seed in range(5):
        other = torch.rand(len(clip), generator=torch.Generator().manual_seed(seed))
        assert perturbation_curves(scorer, other).gain <= best.gain + 1e-6


def test_what_is_in_masked_frames_does_not_matter(made):
    model, clip = made("lstm")
    maps = torch.rand(clip.x[:, 0].shape)
    usual = perturbation_curves(Scorer(model, clip, 0), maps)
    x, wild = clip.x.float(), maps.clone()
    x[~clip.present], wild[~clip.present] = torch.nan, 1e9
    other = perturbation_curves(Scorer(model, dataclasses.replace(clip, x=x), 0), wild)
    assert other.gain == usual.gain


def test_equal_cells_go_in_a_random_order_by_the_seed(made):
    model, clip = made("lstm")
    scorer, flat = Scorer(model, clip), torch.zeros(clip.x[:, 0].shape)
    first, again, other = (perturbation_curves(scorer, flat, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.deletion, again.deletion)
    assert not np.array_equal(first.deletion, other.deletion)


def test_one_frame_of_features_has_one_step(made):
    model, crops = made("lstm")
    clip = features_of(model, crops)
    one = Frames(clip.x[:1], torch.tensor([True]), torch.zeros(1))
    found = perturbation_curves(Scorer(model, one), torch.ones(1))
    assert found.shares.tolist() == [0, 1] and found.gain == pytest.approx(0, abs=1e-6)


def test_values_of_another_shape_are_refused(made):
    model, clip = made("lstm")
    with pytest.raises(ValueError, match=r"(?s)9.*\(4,\)"):
        perturbation_curves(Scorer(model, clip), torch.ones(4))
