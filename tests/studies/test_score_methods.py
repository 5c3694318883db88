"""Scoring methods from Python."""

import pytest
import torch

import painseq
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import AI4Pain
from painseq.errors import PainseqError
from painseq.studies.score_methods import ScoringOptions, score_methods

OPTIONS = ScoringOptions(clips=1, methods=("votes",), most_steps=8)


@pytest.fixture
def data(electrical):
    return AI4Pain(electrical, DataOptions(split=SplitOptions(protocol="official_inner")))


def test_a_run_is_resumed_with_the_same_model_alone(ann, data, tmp_path):
    seen = []
    model, out = painseq.load(ann), tmp_path / "out"
    ranking = score_methods(model, data, out, OPTIONS, on_progress=lambda *now: seen.append(now))
    assert {one.method for one in ranking.ranks["time"]} == {"votes", "random"}
    assert ranking.details["verdict"]["time"] and "space" not in ranking.ranks
    assert {total for _, total, _ in seen} == {2}
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    again = score_methods(painseq.load(ann), data, out, OPTIONS)
    assert again.details == ranking.details
    mix = {"no_pain": 0.5, "low_pain": 0.25, "high_pain": 0.25}
    with pytest.raises(PainseqError, match=r"(?s)out.*model"):
        score_methods(model.with_prior(mix), data, out, OPTIONS)
    with torch.no_grad():
        next(model.head.parameters()).add_(0.1)
    with pytest.raises(PainseqError, match=r"(?s)out.*model"):
        score_methods(model, data, out, OPTIONS)
