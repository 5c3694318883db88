import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.synthetic.expression import AUS, REGIONS, Course, draw_course, draw_temper, frame_count

EVERYDAY = ("AU45", "AU12", "AU25", "AU26")


def course(stimulus, level, seed, duration_s=10.0):
    rng = np.random.default_rng(seed)
    return draw_course(stimulus, level, duration_s, 10.0, draw_temper(rng), rng)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([("heat", 4), ("heat", 0), ("electrical", 0.5), ("electrical", 2), ("clinical", 1)]),
    st.integers(0, 10_000),
)
def test_intensities_are_in_range_and_pain_is_part_of_what_is_seen(kind, seed):
    drawn = course(*kind, seed)
    assert drawn.au.shape == drawn.pain.shape == (100, len(AUS))
    assert drawn.au.min() >= 0 and drawn.au.max() <= 5
    assert (drawn.au >= drawn.pain).all()
    assert drawn.pspi.min() >= 0 and drawn.pspi.max() <= 16
    assert drawn.region_active.shape == (100, len(REGIONS))


def test_pspi_follows_its_formula():
    au = np.zeros((3, len(AUS)))
    au[0, [AUS.index("AU4"), AUS.index("AU6"), AUS.index("AU7")]] = 3.0, 2.0, 4.0
    au[1, [AUS.index("AU9"), AUS.index("AU10"), AUS.index("AU43")]] = 1.0, 2.5, 5.0
    au[2, [AUS.index("AU12"), AUS.index("AU25"), AUS.index("AU45")]] = 5.0
    course = Course(np.arange(3.0), au, np.zeros_like(au))
    np.testing.assert_allclose(course.pspi, [7.0, 3.5, 0.0])


def test_without_pain_no_region_carries_any():
    drawn = course("heat", 0, 3, duration_s=60.0)
    assert not drawn.pain.any() and not drawn.region_active.any()


def test_a_region_is_active_where_pain_moves_it_and_not_where_a_smile_does():
    zero = np.zeros((1, len(AUS)))
    smile, wince = zero.copy(), zero.copy()
    smile[0, AUS.index("AU6")] = 3.0
    wince[0, AUS.index("AU4")] = 2.0
    drawn = Course(np.zeros(1), np.maximum(smile, wince), wince)
    assert dict(zip(REGIONS, drawn.region_active[0], strict=True)) == {
        "brows": True,
        "eyes": False,
        "nose": False,
        "cheeks": False,
        "mouth": False,
    }


@pytest.mark.parametrize(
    ("stimulus", "levels"), [("heat", (0, 4 / 3, 4)), ("electrical", (0, 1, 2)), ("clinical", (0, 0.4, 1))]
)
def test_more_pain_shows_more_and_everyday_events_happen_in_every_class(stimulus, levels):
    shown = []
    for level in levels:
        drawn = [course(stimulus, level, seed) for seed in range(60)]
        shown.append(np.mean([each.pain.sum(axis=1).mean() for each in drawn]))
        for name in EVERYDAY:
            assert max(each.au[:, AUS.index(name)].max() for each in drawn) > 1.0
    assert shown[0] == 0 and shown[1] > 0 and shown[2] > 1.5 * shown[1]


def test_heat_ends_high_and_electrical_pain_comes_in_bursts():
    heat = [course("heat", 4, seed, 5.5).pain.sum(axis=1) for seed in range(60)]
    shock = [course("electrical", 2, seed).pain.sum(axis=1) for seed in range(60)]
    assert np.mean([each[-10:].mean() for each in heat]) > 4 * np.mean([each[:15].mean() for each in heat])
    # Between two bursts the face comes to rest again.
    onsets = [int(((each[1:] > 0.5) & (each[:-1] <= 0.5)).sum()) for each in shock]
    assert np.mean(onsets) > 1.8


def test_clinical_pain_comes_and_goes_within_a_clip_that_mostly_shows_none():
    shown = [course("clinical", 1, seed).pain.sum(axis=1) for seed in range(60)]
    assert all(each[0] == each[-1] == 0 and each.max() > 0 for each in shown)
    assert np.mean([(each > 1).mean() for each in shown]) < 0.4


def test_a_level_between_two_shows_pain_between_theirs():
    means = [
        np.mean([course("electrical", level, seed).pain.mean() for seed in range(80)]) for level in (0.5, 1.0, 1.5, 2.0)
    ]
    assert 0 < means[0] < means[1] < means[2] < means[3]


def test_even_a_short_shock_shows():
    assert all(course("electrical", 0.5, seed, duration_s=2.0).pain.any() for seed in range(20))


def test_frame_counts_are_those_of_the_real_sets():
    assert frame_count(5.5, 25.0) == 138
    assert frame_count(10.0, 30.0) == 300
    assert frame_count(60.0, 30.0) == 1800
