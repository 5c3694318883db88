"""Regions of the face, and how an attribution is spread over them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from painseq.errors import PainseqError
from painseq.evaluation.intervals import mean_interval
from painseq.explain import REGIONS, Attribution, Frames, region_bars, region_masks, region_shares, region_table
from painseq.explain.frames import landmarks_in_crops
from painseq.explain.region_shares import RegionShares
from painseq.explain.regions import ACTION_UNITS, UNKNOWN
from painseq.synthetic.clips import ClipJob, draw_clip
from painseq.synthetic.expression import REGION_AUS
from painseq.synthetic.expression import REGIONS as GENERATED

SIDE = 96


@pytest.fixture(scope="module")
def drawing():
    """High pain, drawn as landmarks and truth; no frame is painted."""
    return draw_clip(ClipJob(Path(), "a", "a", "a", "High_Pain", "electrical", 2.0, 4.0, 5.0, SIDE, 0, 2, 1, 1))


@pytest.fixture(scope="module")
def landmarks(drawing):
    return torch.from_numpy(drawing.landmarks)


def attribution(values, landmarks, present=None):
    frames = len(values)
    present = torch.ones(frames, dtype=torch.bool) if present is None else present
    crops = torch.zeros(frames, 3, *values.shape[-2:], dtype=torch.uint8)
    clip = Frames(crops, present, torch.arange(frames) / 5, landmarks=landmarks)
    return Attribution(values, clip, "gradcam", 0, "no_pain", 0.0)


@pytest.mark.parametrize("shift", [0.0, 30.0, -70.0, 1e4])
@pytest.mark.parametrize("size_px", [16, SIDE])
def test_every_pixel_lies_in_one_region_wherever_the_face_is(landmarks, size_px, shift):
    masks = region_masks((landmarks + shift) * size_px / SIDE, size_px)
    assert masks.shape == (len(landmarks), len(REGIONS), size_px, size_px)
    assert (masks.sum(axis=1) == 1).all()
    if shift == 1e4:
        assert masks[:, REGIONS.index("outside the face")].all()


def test_regions_lie_where_the_generator_puts_them(drawing, landmarks):
    assert REGIONS[:5] == GENERATED
    assert all(set(units) <= set(ACTION_UNITS[region]) for region, units in REGION_AUS.items())
    masks = region_masks(landmarks, SIDE)
    y, x = np.indices((SIDE, SIDE)) + 0.5
    for number, least in enumerate([0.85, 0.85, 0.7, 0.5, 0.85]):
        left, top, right, bottom = drawing.regions[:, number].T[:, :, None, None]
        truth = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        inside = (masks[:, number] & truth).sum() / masks[:, number].sum()
        assert inside > least, REGIONS[number]
        middle = masks[:, number][truth].mean()
        others = masks[:, number][~truth].mean()
        assert middle > 4 * others, REGIONS[number]


@pytest.mark.parametrize("points", [468, 478])
def test_the_regions_of_a_mesh_are_those_of_another_detectors_points(assets, points):
    """Where the face ends apart: the mesh's jaw lies further out, and it has a forehead."""
    golden = assets / "golden"
    with np.load(golden / "golden_single_face_facelandmarker.npz") as mesh, np.load(golden / "single_face.npz") as dlib:
        frames = mesh["frame"].astype(int)[:: len(mesh["frame"]) // 6]
        ibug = torch.from_numpy(dlib["dlib68"][frames]).float()
        mesh = torch.from_numpy(mesh["landmarks"][:: len(mesh["frame"]) // 6, :points]).float()
    left_top = ibug.amin(dim=(0, 1)) - 40
    side = float((ibug.amax(dim=(0, 1)) + 20 - left_top).max())
    of_ibug, of_mesh = (region_masks((given - left_top) / side * SIDE, SIDE) for given in (ibug, mesh))
    assert (of_mesh.sum(axis=1) == 1).all()
    for number, least in enumerate([0.6, 0.6, 0.6, 0.6, 0.6, 0.4, 0.85]):
        both, either = (of_ibug & of_mesh)[:, number].sum(), (of_ibug | of_mesh)[:, number].sum()
        assert both / either > least, REGIONS[number]


def test_a_closed_eye_is_as_large_as_an_open_one(landmarks):
    closed = landmarks.clone()
    for first in (36, 42):
        corner = closed[:, first, None], closed[:, first + 3, None]
        closed[:, first + 1 : first + 3] = closed[:, first + 4 : first + 6] = (corner[0] + corner[1]) / 2
    eyes = REGIONS.index("eyes")
    assert np.array_equal(region_masks(closed, SIDE)[:, eyes], region_masks(landmarks, SIDE)[:, eyes])


def test_a_frame_with_an_unknown_landmark_belongs_to_no_region_and_does_not_count(landmarks):
    broken = landmarks.clone()
    broken[2, 30, 1] = float("nan")
    masks = region_masks(broken, SIDE)
    assert not masks[2].any() and masks[[0, 1, 3]].any(axis=(1, 2, 3)).all()
    values = torch.zeros(len(landmarks), SIDE, SIDE)
    values[2] = 1.0
    shares = region_shares(attribution(values, broken))
    assert (shares.frames, shares.left_out) == (len(landmarks) - 1, 1)
    assert np.isnan(shares.share).all() and shares.area.sum() == pytest.approx(1)


def test_an_attribution_tells_the_region_of_each_pixel(landmarks):
    present = torch.arange(len(landmarks)) != 3
    found = attribution(torch.ones(len(landmarks), SIDE, SIDE), landmarks, present)
    masks = torch.from_numpy(region_masks(landmarks, SIDE))
    assert found.regions.shape == found.maps.shape and (found.regions[3] == UNKNOWN).all()
    for number in range(len(REGIONS)):
        assert torch.equal(found.regions[present] == number, masks[present, number])


def test_shares_are_ready_for_json(landmarks):
    mouth = region_masks(landmarks, SIDE)[:, REGIONS.index("mouth")]
    content = region_shares(attribution(torch.from_numpy(mouth).float(), landmarks)).to_dict()
    assert content["regions"]["mouth"]["share"] == 1 and content["frames"] == len(landmarks)
    content = region_shares(attribution(torch.zeros(len(landmarks), SIDE, SIDE), landmarks)).to_dict()
    assert content["regions"]["mouth"]["share"] is None and 0 < content["regions"]["mouth"]["area"] < 1


def test_a_map_in_the_mouth_alone_gives_all_to_the_mouth(landmarks):
    mouth = region_masks(landmarks, SIDE)[:, REGIONS.index("mouth")]
    shares = region_shares(attribution(torch.from_numpy(mouth).float(), landmarks))
    assert shares.share.tolist() == [float(region == "mouth") for region in REGIONS]


def test_shares_are_those_of_plain_sums(landmarks):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(len(landmarks), 3, SIDE, SIDE, generator=generator)
    present = torch.arange(len(landmarks)) % 3 != 1
    among = torch.arange(len(landmarks)) < 12
    shares = region_shares(attribution(values, landmarks, present), among)
    positive = values.sum(dim=1).clamp(min=0).double().numpy()
    masks = region_masks(landmarks, SIDE)
    counted = np.flatnonzero((present & among).numpy())
    mass = np.array([sum(positive[t][masks[t, r]].sum() for t in counted) for r in range(len(REGIONS))])
    area = np.array([np.mean([masks[t, r].mean() for t in counted]) for r in range(len(REGIONS))])
    assert np.allclose(shares.share, mass / mass.sum()) and np.allclose(shares.area, area)
    assert shares.area.sum() == pytest.approx(1) and (shares.frames, shares.left_out) == (8, 4)


def test_an_even_map_gives_each_region_its_area(landmarks):
    shares = region_shares(attribution(torch.ones(len(landmarks), SIDE, SIDE), landmarks))
    assert np.allclose(shares.share, shares.area)


def test_a_clip_without_a_counted_frame_has_no_shares(landmarks):
    shares = region_shares(
        attribution(torch.ones(len(landmarks), SIDE, SIDE), landmarks, torch.zeros(len(landmarks), dtype=torch.bool))
    )
    assert np.isnan(shares.share).all() and np.isnan(shares.area).all() and shares.frames == 0


@pytest.mark.parametrize("points", [None, 5])
def test_other_landmarks_than_the_68_are_refused_with_a_way_out(points):
    few = None if points is None else torch.zeros(2, points, 2)
    with pytest.raises(PainseqError, match=r"(?s)68.*face_alignment"):
        region_shares(attribution(torch.ones(2, 8, 8), few))


def test_landmarks_move_into_the_crop():
    boxes = torch.tensor([[10.0, 20.0, 50.0, 100.0]])
    points = torch.tensor([[[10.0, 20.0], [30.0, 60.0], [50.0, 100.0]]])
    assert landmarks_in_crops(points, boxes, 8).tolist() == [[[0.0, 0.0], [4.0, 4.0], [8.0, 8.0]]]


def test_landmarks_move_into_a_turned_crop_and_depth_is_left_out():
    boxes, quarter = torch.tensor([[10.0, 20.0, 50.0, 60.0]] * 2), torch.tensor([torch.pi / 2, float("nan")])
    points = torch.tensor([[[30.0, 40.0, 5.0], [30.0, 60.0, 5.0], [10.0, 20.0, 5.0]]] * 2)
    turned = landmarks_in_crops(points, boxes, 8, quarter)
    assert turned.shape == (2, 3, 2) and turned[1].isnan().all()
    torch.testing.assert_close(turned[0], torch.tensor([[4.0, 4.0], [8.0, 4.0], [0.0, 8.0]]), atol=1e-5, rtol=0)


def test_each_subject_counts_once_and_empty_maps_are_left_out():
    rng = np.random.default_rng(0)
    subjects = ["a", "a", "a", "b", "c", "c"]
    share, area = rng.dirichlet(np.ones(len(REGIONS)), 6), rng.dirichlet(np.ones(len(REGIONS)), 6)
    share[4] = np.nan
    rows = region_table([RegionShares(s, a, 1, 0) for s, a in zip(share, area, strict=True)], subjects)
    groups = [[0, 1, 2], [3], [5]]
    for number, row in enumerate(rows):
        means = np.array([share[group, number].mean() for group in groups])
        excess = np.array([(share - area)[group, number].mean() for group in groups])
        assert row.region == REGIONS[number] and row.share.value == pytest.approx(means.mean())
        assert row.excess.value == pytest.approx(excess.mean()) and row.excess.interval.subjects == 3
        assert row.excess.interval.low == pytest.approx(mean_interval(excess, (-1, 1)).low)
        assert row.share.value - row.area.value == pytest.approx(row.excess.value)


def test_region_bars_are_drawn_for_any_number_of_classes_and_subjects():
    share = np.full(len(REGIONS), 1 / len(REGIONS))
    one = region_table([RegionShares(share, share, 1, 0)], ["a"])
    none = region_table([RegionShares(share * np.nan, share, 1, 0)], ["a"])
    assert b"outside the face" in region_bars({"no_pain": one, "pain": none}, "gradcam")
    assert region_bars({"no_pain": one}, "gradcam", "png").startswith(b"\x89PNG")
