"""The order of methods, and the verdict."""

import re

from painseq.explain import ranking


def scores(method, gain):
    curve = [0.5, 0.5]
    return ranking.MethodScores(method, 0.0, gain, gain, None, None, None, None, None, [0.0, 1.0], curve, curve)


def test_the_verdict_names_the_best_method_that_reads_the_model():
    people = [f"S{number}" for number in range(6)]
    wobble = [0.01, -0.02, 0.0, 0.02, 0.01, -0.02]
    clips = [
        [scores("good", 0.3 + w), scores("better", 0.5 - w), scores("edges", 0.9), scores("random", w)] for w in wobble
    ]
    ranks = ranking.rank(clips, people, {"good": False, "better": None, "edges": True})
    assert [one.method for one in ranks] == ["better", "good", "random", "edges"]
    verdict = ranking.verdict(ranks)
    assert re.search(r"\bbetter\b.*\b0\.5 \(0\.4.*\bgood\b.*\bedges\b", verdict)
    nothing = [[scores("good", w), scores("random", -w)] for w in wobble]
    assert "good" not in ranking.verdict(ranking.rank(nothing, people, {}))
    best_is_flagged = [[one for one in clip if one.method != "good"] for clip in clips]
    verdict = ranking.verdict(ranking.rank(best_is_flagged, people, {"edges": True}))
    assert re.search(r"\bbetter\b.*\b0\.5 \(0\.4.*\bedges\b", verdict)
    verdict = ranking.verdict(ranking.rank(best_is_flagged, people, {"edges": True, "better": True}))
    assert "0.5" not in verdict and "edges" in verdict and "better" in verdict
    alone = ranking.verdict(ranking.rank(clips[:2], ["S0", "S0"], {}))
    assert "better" not in alone


def test_subjects_count_once_however_many_clips_they_have():
    clips = [[scores("m", 0.0), scores("random", 0.0)]] * 3 + [[scores("m", 1.0), scores("random", 0.5)]]
    of = {one.method: one for one in ranking.rank(clips, ["a", "a", "a", "b"], {})}
    assert of["m"].means["gain"].value == 0.5 and of["m"].above_random.value == 0.25
    assert of["m"].means["truth_mass"].value is None and of["random"].above_random is None
