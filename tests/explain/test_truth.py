"""Attributions beside the truth of generated faces."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from painseq.explain import Attribution, Frames, pain_regions, truth_scores
from painseq.synthetic.expression import REGIONS

SIDE = 24
FPS = 4.0


@pytest.fixture(scope="module")
def painful(heat):
    """A clip of the strongest pain, its truth, and the name of both."""
    video = sorted((heat / "PartA" / "video").glob("*/*-PA4-*.mp4"))[0]
    below = video.relative_to(heat).with_suffix(".safetensors")
    return video, load_file(heat.parent / "heat_truth" / below)


def clip_of(frames, boxes=(6.0, 3.0, 58.0, 55.0), present=None):
    present = torch.ones(frames, dtype=torch.bool) if present is None else present
    crops = torch.zeros(frames, 3, SIDE, SIDE, dtype=torch.uint8)
    return Frames(crops, present, torch.arange(frames) / FPS, boxes=torch.tensor(boxes).expand(frames, 4))


def attribution_of(maps, present=None):
    return Attribution(maps, clip_of(len(maps), present=present), "saliency", 1, "high_pain", 0.0)


def test_regions_are_the_generators_boxes_that_pain_moves_seen_in_the_crop(painful):
    video, truth = painful
    present = torch.ones(12, dtype=torch.bool)
    present[9] = False
    found = pain_regions(video, clip_of(12, present=present), start_s=2.0)
    assert found.shape == (12, SIDE, SIDE) and found.dtype == torch.bool
    expected = np.zeros(found.shape, bool)
    for t in range(12):
        for region in range(len(REGIONS)):
            left, top, right, bottom = truth["regions"][t + 8, region]
            if truth["region_active"][t + 8, region] and t != 9:
                for row in range(SIDE):
                    for column in range(SIDE):
                        x, y = 6 + (column + 0.5) * 52 / SIDE, 3 + (row + 0.5) * 52 / SIDE
                        expected[t, row, column] |= left <= x < right and top <= y < bottom
    assert np.array_equal(found.numpy(), expected)
    assert expected.any() and truth["region_active"][17].any() and not found[9].any()


def test_regions_are_seen_turned_in_a_turned_crop(painful):
    video, _ = painful
    upright, angle = clip_of(12), torch.full((12,), -torch.pi / 2)
    found = pain_regions(video, dataclasses.replace(upright, angles_rad=angle), start_s=2.0)
    assert found.any() and not torch.equal(found, pain_regions(video, upright, start_s=2.0))
    assert torch.equal(found, torch.rot90(pain_regions(video, upright, start_s=2.0), -1, dims=(1, 2)))


def test_without_pain_there_is_no_region_whatever_the_face_does(painful, heat):
    video, truth = painful
    found = pain_regions(video, clip_of(22))
    assert torch.equal(found.flatten(1).any(dim=1), torch.from_numpy(truth["region_active"].any(axis=1)))
    assert not found[0].any() and found[-1].any()
    moved = 0.0
    for calm in (heat / "PartA" / "video").glob("*/*-BL1-*.mp4"):
        moved += load_file(heat.parent / "heat_truth" / calm.relative_to(heat).with_suffix(".safetensors"))["au"].sum()
        assert not pain_regions(calm, clip_of(22)).any()
    assert moved > 0


def test_frames_beyond_the_truth_show_nothing_known(painful):
    video, _ = painful
    assert not pain_regions(video, clip_of(5), start_s=60.0).any()


def test_no_truth_no_regions_and_features_have_no_places(painful, video):
    assert pain_regions(video, clip_of(5)) is None
    with pytest.raises(ValueError, match="crops"):
        pain_regions(painful[0], Frames(torch.zeros(5, 7), torch.ones(5).bool(), torch.arange(5.0)))


def plainly(maps, regions, present):
    """Frame by frame: mass, area, pointing, frames."""
    found = []
    for values, truth, there in zip(maps.clip(0).astype(float), regions, present, strict=True):
        if there and truth.any() and values.any():
            tops = np.argwhere(values == values.max())
            hits = np.mean([truth[tuple(place)] for place in tops])
            found.append((values[truth].sum() / values.sum(), truth.mean(), hits))
    return (*np.mean(found, axis=0), len(found))


@pytest.mark.parametrize("seed", range(8))
def test_scores_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(9, SIDE, SIDE)).astype(np.float32) * rng.uniform(0, 1e-6 if seed == 1 else 5, (9, 1, 1))
    maps = maps.astype(np.float32)
    if seed > 3:
        maps = maps.round()  # many equal maxima
    maps[4] = -1.0
    regions = rng.random((9, SIDE, SIDE)) < rng.choice([0.0, 0.1, 0.6, 1.0], (9, 1, 1))
    regions[4] = True
    present = torch.from_numpy(rng.random(9) < 0.8)
    present[4] = True
    maps[~present.numpy()] = 0.0
    regions[1, 3:5], present[1], maps[1, 3, 3] = True, True, 7.0
    scores = truth_scores(attribution_of(torch.from_numpy(maps), present), torch.from_numpy(regions))
    expected = plainly(maps, regions, present.numpy())
    assert (scores.mass, scores.area, scores.pointing, scores.frames) == pytest.approx(expected)
    assert scores.empty == 1


def test_a_map_that_knows_nothing_gets_the_area_even_if_it_knows_the_frames():
    regions = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
    regions[0, :2], regions[1, :12] = True, True
    frames = torch.tensor([1.0, 50.0, 300.0])[:, None, None]
    scores = truth_scores(attribution_of(torch.ones(3, SIDE, SIDE) * frames), regions)
    assert scores.mass == pytest.approx(scores.area) and scores.area == pytest.approx(7 / SIDE)
    assert scores.pointing == pytest.approx(scores.area) and scores.frames == 2


def test_a_map_inside_the_truth_is_all_right_and_one_beside_it_all_wrong():
    regions = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    regions[0, 5:9, 5:9] = True
    right = truth_scores(attribution_of(regions.float()), regions)
    wrong = truth_scores(attribution_of((~regions).float()), regions)
    assert (right.mass, right.pointing) == (1.0, 1.0) and (wrong.mass, wrong.pointing) == (0.0, 0.0)
    assert right.area == wrong.area == pytest.approx(16 / SIDE**2)


def test_nothing_is_said_where_there_is_no_pain_no_map_or_no_face():
    maps, regions = torch.ones(4, SIDE, SIDE), torch.ones(4, SIDE, SIDE, dtype=torch.bool)
    assert truth_scores(attribution_of(maps), ~regions) is None
    assert truth_scores(attribution_of(-maps), regions) is None
    nobody = torch.zeros(4, dtype=torch.bool)
    assert truth_scores(attribution_of(maps, nobody), regions) is None
    with pytest.raises(ValueError, match="truth"):
        truth_scores(attribution_of(maps), regions[:2])
