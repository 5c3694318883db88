"""Streams side by side, and mirrored."""

import re

import pytest
import torch

from painseq.data.action_units import COLUMNS
from painseq.data.streams import assemble, check_streams, mirror
from painseq.errors import PainseqError
from painseq.faces.landmarks import mirror as mirror_landmarks
from painseq.faces.landmarks import normalise
from painseq.features import ClipFeatures

UNITS = torch.rand(5, len(COLUMNS))


@pytest.fixture
def clip() -> ClipFeatures:
    random = torch.Generator().manual_seed(0)
    present = torch.tensor([True, True, False, True, True])
    landmarks = torch.where(present[:, None, None], torch.rand((5, 68, 2), generator=random) * 100, torch.nan)
    features = torch.rand((5, 7), generator=random).half()
    return ClipFeatures(features, present, torch.arange(5, dtype=torch.float64), landmarks)


def test_streams_stand_in_the_order_of_their_names(clip):
    points = normalise(clip.landmarks, clip.present)
    parts = {"cnn": clip.features.float(), "landmarks": points, "action_units": UNITS}
    for streams in (
        ("cnn", "landmarks", "action_units"),
        ("cnn", "action_units", "landmarks"),
        ("action_units", "landmarks"),
        ("action_units",),
    ):
        check_streams(streams)
        assert torch.equal(assemble(clip, streams, UNITS), torch.cat([parts[name] for name in streams], dim=1))
    assert assemble(clip, ("cnn",), UNITS) is clip.features


@pytest.mark.parametrize("streams", [("action_units", "cnn"), ("cnn", "au"), ("action_units", "action_units")])
def test_streams_that_cannot_be(streams):
    with pytest.raises(PainseqError, match=rf"streams.*{re.escape(str(list(streams)))}"):
        check_streams(streams)


def test_action_units_without_a_table_are_an_error(clip):
    with pytest.raises(PainseqError, match=r"\bOpenFace\b"):
        assemble(clip, ("cnn", "action_units"))


@pytest.mark.parametrize(
    "streams", [("landmarks", "action_units"), ("action_units", "landmarks"), ("action_units",), ("landmarks",)]
)
def test_landmarks_change_sides_and_action_units_have_none(clip, streams):
    points = normalise(clip.landmarks, clip.present)
    parts = {"landmarks": mirror_landmarks(points), "action_units": UNITS}
    mirrored = mirror(assemble(clip, streams, UNITS), streams)
    assert torch.equal(mirrored, torch.cat([parts[name] for name in streams], dim=1))
