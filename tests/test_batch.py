import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.batch import Sample, collate, masked_mean, real_frames_first

masks = st.integers(1, 12).flatmap(
    lambda t: st.lists(st.lists(st.booleans(), min_size=t, max_size=t), min_size=1, max_size=5)
)


def sample(length, name="clip", pixels=False):
    torch.manual_seed(length)
    present = torch.rand(length) > 0.3
    times = torch.arange(length, dtype=torch.float64) / 10
    if pixels:
        return Sample(name, "s", 1, present, times, video=torch.randint(0, 255, (length, 3, 4, 4), dtype=torch.uint8))
    return Sample(name, "s", 1, present, times, features=torch.randn(length, 5))


@pytest.mark.parametrize("pixels", [False, True])
def test_collate_pads_at_the_end_and_masks_padding_and_faceless_frames(pixels):
    clips = [sample(3, "a", pixels), sample(7, "b", pixels), sample(1, "c", pixels)]
    batch = collate(clips)
    assert batch.x.shape[:2] == (3, 7)
    assert batch.lengths.tolist() == [3, 7, 1]
    for row, clip in enumerate(clips):
        assert torch.equal(batch.x[row, : len(clip.x)], clip.x)
        assert (batch.x[row, len(clip.x) :] == 0).all()
        assert torch.equal(batch.mask[row, : len(clip.x)], clip.present)
        assert not batch.mask[row, len(clip.x) :].any()
    assert (batch.video is None) != (batch.features is None)


def test_a_sample_holds_one_view():
    with pytest.raises(ValueError, match=r"\bvideo\b.*\bfeatures\b"):
        Sample("c", "s", 0, torch.ones(1, dtype=torch.bool), torch.zeros(1))


@settings(max_examples=80, deadline=None)
@given(masks)
def test_real_frames_come_first_in_order(rows):
    mask = torch.tensor(rows)
    x = torch.arange(mask.numel(), dtype=torch.float32).reshape(*mask.shape, 1) + 1
    moved, lengths = real_frames_first(x, mask)
    for row in range(len(mask)):
        expected = x[row][mask[row]]
        assert lengths[row] == len(expected)
        assert torch.equal(moved[row, : len(expected)], expected)
        assert (moved[row, len(expected) :] == 0).all()


@settings(max_examples=80, deadline=None)
@given(masks)
def test_masked_mean_is_the_mean_of_real_frames_even_beside_nan(rows):
    mask = torch.tensor(rows)
    torch.manual_seed(0)
    x = torch.where(mask[..., None], torch.randn(*mask.shape, 3), torch.tensor(float("nan")))
    mean = masked_mean(x, mask)
    for row in range(len(mask)):
        expected = x[row][mask[row]].mean(0) if mask[row].any() else torch.zeros(3)
        torch.testing.assert_close(mean[row], expected)
