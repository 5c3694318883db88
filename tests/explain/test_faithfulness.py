"""Infidelity and sensitivity, where the right number is known."""

import math

import pytest
import torch

from painseq.explain import Scorer, explain, faithfulness, features_of
from painseq.explain.faithfulness import MOST, infidelity, over_input, sensitivity


@pytest.fixture
def linear(made):
    """A model whose score is a sum over frames, features of a clip for it, and each frame's share of the score."""
    model, crops = made("linear_probe")
    clip = features_of(model, crops)
    return model, clip, explain(model, clip, "gradient_x_input", 1).over_time


def test_exact_shares_of_a_linear_model_have_no_infidelity_whatever_their_unit(linear):
    model, clip, shares = linear
    scorer = Scorer(model, clip, 1)
    assert infidelity(scorer, shares) == pytest.approx(0, abs=1e-4)
    assert infidelity(scorer, 7 * shares) == pytest.approx(0, abs=1e-4)
    # Captum's multiplier has a sign of its own.
    assert infidelity(scorer, -shares) == pytest.approx(0, abs=1e-4)
    assert infidelity(scorer, torch.zeros(len(clip))) == pytest.approx(1)


def test_infidelity_of_a_flat_curve_is_what_all_windows_give_by_hand(linear, monkeypatch):
    monkeypatch.setattr(faithfulness, "BOXES", 4000)
    model, clip, shares = linear
    real = shares[clip.present].double()
    length = round(len(real) / 4)
    falls = torch.stack([real[start : start + length].sum() for start in range(len(real) - length + 1)])
    # The same sum in each window: what is left is the falls' spread about their mean.
    expected = float(1 - falls.mean() ** 2 / falls.square().mean())
    assert infidelity(Scorer(model, clip, 1), torch.ones(len(clip))) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("head", ["frame_ann", "lstm", "vivit"])
def test_maps_of_crops_have_an_infidelity_between_0_and_1(made, head):
    model, clip = made(head)
    scorer = Scorer(model, clip)
    maps = torch.rand(clip.x[:, 0].shape, generator=torch.Generator().manual_seed(1))
    found = infidelity(scorer, maps)
    assert 0 <= found <= 1 and infidelity(scorer, maps) == found
    assert 0 <= infidelity(scorer, maps.flatten(1).sum(dim=1)) <= 1


def test_a_score_that_never_falls_has_no_infidelity(linear):
    model, clip, shares = linear
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.zero_()
    assert math.isnan(infidelity(Scorer(model, clip, 1), shares))


def test_spreading_keeps_the_sum(made):
    model, clip = made("lstm")
    scorer, maps = Scorer(model, clip), torch.rand(clip.x[:, 0].shape)
    assert float(over_input(scorer, maps).sum()) == pytest.approx(float(maps.sum()), rel=1e-5)
    assert float(over_input(scorer, maps[:, 0, 0]).sum()) == pytest.approx(float(maps[:, 0, 0].sum()), rel=1e-5)


def test_sensitivity_is_the_largest_relative_change_under_small_noise(made):
    model, clip = made("lstm")
    scorer, seen = Scorer(model, clip), []

    def brightness(frames):
        seen.append(frames.x)
        return frames.x.float().mean(dim=1)

    usual = torch.where(clip.present[:, None, None], clip.x.float().mean(dim=1), 0.0)
    found = sensitivity(scorer, brightness, usual)
    assert len(seen) == faithfulness.NOISY_CLIPS
    for x in seen:
        assert not x[~clip.present].any() and x.min() >= 0 and x.max() <= 255
        assert 5 < (x - scorer.x)[clip.present].abs().max() <= 5.1001
    changes = [float((x.mean(dim=1) - usual).norm() / usual.norm()) for x in seen]
    assert found == pytest.approx(max(changes), rel=1e-5)


def test_sensitivity_of_constant_empty_and_nearly_empty_explanations(made):
    model, clip = made("lstm")
    features = features_of(model, clip)
    scorer, flat = Scorer(model, features), torch.ones(len(features))
    assert sensitivity(scorer, lambda _: flat, flat) == 0
    assert math.isnan(sensitivity(scorer, lambda _: flat, torch.zeros(len(features))))
    assert sensitivity(scorer, lambda _: flat, 1e-12 * flat) == MOST


def test_sensitivity_of_methods_that_need_gradients(made):
    model, clip = made("frame_ann")
    usual = explain(model, clip, "gradcam", 0).maps
    assert (
        0 < sensitivity(Scorer(model, clip, 0), lambda frames: explain(model, frames, "gradcam", 0).maps, usual) < MOST
    )
