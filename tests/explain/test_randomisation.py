"""The parameter-randomisation check."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from painseq.errors import PainseqError
from painseq.explain import Frames, RandomisationOptions, features_of
from painseq.explain.randomisation import (
    EVERYTHING,
    EXTRACTOR,
    HEAD,
    SURVIVES,
    cascade,
    explainer_of,
    randomisation_check,
    randomised,
    similarity,
)
from painseq.extractors import TimmBackbone
from painseq.heads import LinearProbe
from painseq.model.pain_model import PainModel

SIDE, FRAMES = 32, 4


def pictures(count, generator):
    """Clips of a ring or of a disc somewhere, on noise beside a bar that says nothing."""
    labels = torch.arange(count) % 2
    x = 40 * torch.rand((count, FRAMES, 3, SIDE, SIDE), generator=generator) + 60
    for number, label in enumerate(labels.tolist()):
        top, left, column = torch.randint(0, 20, (3,), generator=generator).tolist()
        x[number, ..., column : column + 3] += 60
        x[number, ..., top : top + 12, left : left + 12] = 220
        if label:
            x[number, ..., top + 2 : top + 10, left + 2 : left + 10] = 60
    return x, labels


@pytest.fixture(scope="module")
def fitted(make_record, batch_of):
    """A small network that tells discs from rings, and clips that it has not seen."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    extractor = TimmBackbone("test_resnet", input_size_px=SIDE, seed=1, trainable=["all"])
    head = LinearProbe((math.prod(extractor.out_shape),), 2)
    x, labels = pictures(48, generator)
    frames, wanted = x.flatten(0, 1), labels.repeat_interleave(FRAMES)
    optimiser = torch.optim.Adam([*extractor.parameters(), *head.parameters()], lr=3e-3)
    extractor.train()
    for _ in range(40):
        some = torch.randperm(len(frames), generator=generator)[:48]
        features = extractor(frames[some])[:, None]
        loss = torch.nn.functional.cross_entropy(head(features, torch.ones(len(some), 1).bool()), wanted[some])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    extractor.requires_grad_(False)
    model = PainModel(make_record(class_names=("disc", "ring")), head.eval(), extractor.eval(), None)
    new, truth = pictures(6, generator)
    present = torch.tensor([True, True, False, True])
    clips = [Frames(one, present, torch.arange(FRAMES) / 5) for one in new]
    with torch.no_grad():
        labels = torch.stack([model(batch_of(clip))[0].argmax() for clip in clips])
    assert (labels == truth).all()
    return model, clips


def edges(model, clip, target):
    """A broken explainer: it shows the picture, and never asks the model."""
    grey = clip.x.float().mean(dim=1)
    return torch.stack([torch.stack(torch.gradient(one)).norm(dim=0) for one in grey])


def test_an_edge_detector_is_flagged(fitted):
    check = randomisation_check(*fitted, edges)
    assert check.survives is True and check.clips == 6
    for means in (*check.similarity.values(), check.between_random):
        assert means["signed"].value == means["absolute"].value == 1.0
    assert set(check.similarity) == {HEAD, EXTRACTOR, EVERYTHING}


@pytest.mark.parametrize("method", ["gradcam", "integrated_gradients"])
def test_methods_that_read_the_model_are_not_flagged(fitted, method):
    model, clips = fitted
    check = randomisation_check(model, clips, explainer_of(method, "space", 16), options=RandomisationOptions(parts=()))
    means = check.similarity[EVERYTHING]
    assert check.survives is False
    assert max(means["signed"].value, means["absolute"].value) < SURVIVES
    assert check.to_dict()["survives"] is False


def test_a_sign_that_depends_on_the_model_does_not_save_an_edge_detector(fitted):
    model, clips = fitted

    def signed(model, clip, target):
        return edges(model, clip, target) * math.copysign(1, next(model.head.parameters()).flatten()[0].item())

    assert randomisation_check(model, clips, signed, options=RandomisationOptions(parts=())).survives is True


def test_a_curve_that_is_the_same_everywhere_is_not_judged(fitted):
    model, clips = fitted
    features = [features_of(model, clip) for clip in clips]
    check = randomisation_check(model, features, lambda model, clip, target: torch.ones(len(clip)), ["a", "b"] * 3)
    assert check.survives is None and set(check.similarity) == {EVERYTHING}
    moving = randomisation_check(model, features, lambda model, clip, target: torch.arange(len(clip)).float())
    assert moving.survives is True and math.isnan(similarity(*[torch.ones(3)] * 2, torch.ones(3).bool()).ssim)


def test_the_class_is_the_one_asked_for_or_else_the_predicted_one(fitted):
    model, clips = fitted
    seen = []

    def noted(model, clip, target):
        seen.append(target)
        return torch.arange(len(clip)).float()

    randomisation_check(model, clips[:2], noted, options=RandomisationOptions(parts=()))
    assert seen == [0, 0, 0, 1, 1, 1]
    seen.clear()
    randomisation_check(model, clips[:2], noted, options=RandomisationOptions(parts=(), target=1))
    assert seen == [1] * 6


def test_a_part_is_shuffled_and_nothing_else(fitted):
    model, _ = fitted
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for part, changed in ((HEAD, {"head"}), (EXTRACTOR, {"extractor"}), (EVERYTHING, {"head", "extractor"})):
        other = randomised(model, part, 3)
        moved = {name for name, value in other.named_parameters() if not torch.equal(value, before[name])}
        assert {name.split(".")[0] for name in moved} == changed
        for name, value in other.named_parameters():
            assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values)
        again = randomised(model, part, 3).state_dict()
        assert all(torch.equal(value, again[name]) for name, value in other.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_of_averaged_models_every_head_is_shuffled(made):
    from painseq.model.averaging import AveragedModel

    model = AveragedModel([made("lstm")[0] for _ in range(2)])
    other = randomised(model, HEAD, 0)
    heads = [dict(one.head.named_parameters()) for one in (*model.members, *other.members)]
    assert not any(torch.equal(heads[0][name], heads[2][name]) for name in heads[0] if heads[0][name].std() > 0)
    assert not any(torch.equal(heads[1][name], heads[3][name]) for name in heads[0] if heads[0][name].std() > 0)


def test_the_cascade_takes_one_more_block_each_time(fitted):
    model, _ = fitted
    sizes = []
    for part in cascade(model):
        other = dict(randomised(model, part, 0).named_parameters())
        sizes.append(sum(not torch.equal(value, other[name]) for name, value in model.named_parameters()))
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    everything = dict(randomised(model, EVERYTHING, 0).named_parameters())
    assert sizes[-1] == sum(not torch.equal(value, everything[name]) for name, value in model.named_parameters())
    with pytest.raises(PainseqError, match=r"(?s)'neck'.*head.*everything"):
        randomised(model, "neck", 0)


def test_a_model_that_takes_pixels_has_its_head_randomised(made):
    model, clip = made("vivit")
    found = randomisation_check(model, [clip], explainer_of("rollout", "space", 8))
    assert set(found.similarity) == {EVERYTHING} and found.clips == 1


def test_similarity_is_the_correlation_of_ranks_of_cells(made):
    generator = torch.Generator().manual_seed(4)
    a, b = torch.randn((2, 5, 32, 32), generator=generator)
    present = torch.tensor([1, 0, 1, 1, 1]).bool()
    cells = [m[present].reshape(4, 16, 2, 16, 2).sum(dim=(2, 4)).flatten().numpy() for m in (a, b)]
    expected = np.corrcoef(rankdata(cells[0]), rankdata(cells[1]))[0, 1]
    found = similarity(a, b, present)
    assert found.signed == pytest.approx(expected, abs=1e-6) and abs(found.ssim) < 0.3
    same = similarity(a, -a, present)
    assert same.signed == pytest.approx(-1) and same.absolute == pytest.approx(1) and same.ssim == pytest.approx(1)
    assert math.isnan(similarity(a, torch.zeros_like(a), present).signed)
