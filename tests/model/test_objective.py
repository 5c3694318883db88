"""Losses against computations of their own."""

import math

import pytest
import torch
from torch.nn import functional as F

from painseq.data.labels import Scale
from painseq.errors import PainseqError
from painseq.evaluation.metrics import balanced_accuracy, confusion_matrix
from painseq.model.decision import decide
from painseq.model.objective import Corn, CrossEntropy, SquaredError, objective_of

FIVE, PSPI = Corn("abcde"), Scale("pspi", 0, 16)


def corn_by_hand(outputs: list[list[float]], target: list[int], weight: list[float]) -> float:
    """Shi et al. 2021, equation 5, question by question: the k-th is put to those whose level is k or higher."""
    total = asked = 0.0
    for question in range(len(outputs[0])):
        for row, level, w in zip(outputs, target, weight, strict=True):
            if level >= question:
                p = 1 / (1 + math.exp(-row[question]))
                total -= w * math.log(p if level > question else 1 - p)
                asked += w
    return total / asked


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_corn_equals_the_paper_written_out(classes):
    torch.manual_seed(classes)
    corn = Corn([str(level) for level in range(classes)])
    outputs = torch.randn(40, corn.num_outputs) * 3
    target, weight = torch.randint(classes, (40,)), torch.rand(40)
    total, asked = corn.loss_sums(outputs, target, weight)
    expected = corn_by_hand(outputs.tolist(), target.tolist(), weight.tolist())
    assert (total / asked).item() == pytest.approx(expected, rel=1e-5)


def test_corns_probabilities_are_products_of_conditional_ones():
    torch.manual_seed(0)
    outputs = torch.randn(7, 4) * 3
    p = FIVE.predictions(outputs).softmax(-1)
    conditional = outputs.sigmoid()
    for row in range(7):
        above = 1.0
        for level in range(5):
            higher = above * conditional[row, level].item() if level < 4 else 0.0
            assert p[row, level].item() == pytest.approx(above - higher, abs=1e-6)
            above = higher


def test_corns_label_is_the_level_reached_with_more_than_half_of_the_probability():
    torch.manual_seed(0)
    outputs = torch.randn(300, 4) * 2
    mask = torch.ones(300, 1, dtype=torch.bool)
    label = FIVE.answer("video", FIVE.predictions(outputs), mask)
    # The paper's rule: one plus the number of questions whose cumulative probability exceeds one half.
    expected = (outputs.sigmoid().cumprod(-1) > 0.5).sum(-1)
    assert torch.equal(label, expected)
    mode = decide("video", FIVE.predictions(outputs), mask).label
    assert not torch.equal(label, mode)


def test_a_frames_vote_is_by_the_rule_too():
    # 0.4, 0.25, 0.35: the most probable class is the first, the median the second.
    logits = torch.tensor([[0.4, 0.25, 0.35]]).log()[None].expand(1, 3, 3)
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert decide("frame", logits, mask).label.tolist() == [0]
    decision = decide("frame", logits, mask, "median")
    assert decision.label.tolist() == [1] and decision.votes.tolist() == [[0, 1, 0]]


def test_cross_entropy_is_torchs_with_weights_and_smoothing():
    torch.manual_seed(0)
    outputs, target, by_class = torch.randn(50, 3), torch.randint(3, (50,)), torch.tensor([0.5, 1.0, 2.0])
    total, weight = CrossEntropy("abc").loss_sums(outputs, target, by_class[target])
    assert (total / weight).item() == pytest.approx(F.cross_entropy(outputs, target, by_class).item(), rel=1e-6)
    total, weight = CrossEntropy("abc").loss_sums(outputs, target, torch.ones(50), 0.1 * torch.ones(3) / 3)
    assert (total / weight).item() == pytest.approx(F.cross_entropy(outputs, target, label_smoothing=0.1).item())
    prior = torch.tensor([0.6, 0.3, 0.1])
    soft = 0.8 * F.one_hot(target, 3) + 0.2 * prior
    total, weight = CrossEntropy("abc").loss_sums(outputs, target, torch.ones(50), 0.2 * prior)
    assert (total / weight).item() == pytest.approx(F.cross_entropy(outputs, soft).item(), rel=1e-6)


@pytest.mark.parametrize("objective", [CrossEntropy("ab"), Corn("abc")])
def test_extreme_outputs_give_finite_losses_and_gradients(objective):
    outputs = torch.tensor([[300.0, -300.0], [-300.0, 300.0]], requires_grad=True)
    total, weight = objective.loss_sums(outputs, torch.tensor([1, 0]), torch.ones(2))
    (total / weight).backward()
    assert torch.isfinite(total) and torch.isfinite(outputs.grad).all()
    assert torch.isfinite(objective.predictions(outputs).softmax(-1)).all()


def test_squared_error_is_that_of_torch():
    torch.manual_seed(0)
    outputs, target, weight = torch.randn(50, 1), torch.rand(50) * 16, (torch.rand(50) > 0.3).float()
    squared = SquaredError(PSPI)
    total, count = squared.loss_sums(outputs, target, weight)
    expected = F.mse_loss(squared.predictions(outputs)[weight > 0, 0], target[weight > 0]) / 16**2
    assert squared.num_outputs == 1 and squared.names == ("pspi",)
    assert (total / count).item() == pytest.approx(expected.item(), rel=1e-5)


def test_answers_are_within_the_scale_and_of_real_frames():
    squared, mask = SquaredError(PSPI), torch.tensor([[True, True, False]])
    answer = squared.answer("frame", squared.predictions(torch.tensor([[[0.25], [2.75], [9.0]]])), mask)
    assert answer.tolist() == [16]
    assert squared.answer("frame", squared.predictions(torch.tensor([[[0.25], [0.75], [9.0]]])), mask).tolist() == [8]


@pytest.mark.parametrize("objective", [CrossEntropy("abc"), FIVE, SquaredError(PSPI)])
def test_the_mean_of_models_is_that_of_what_is_shown(objective):
    torch.manual_seed(0)
    each = [objective.predictions(torch.randn(4, objective.num_outputs)) for _ in range(3)]
    shown = objective.shown(objective.mean(each))
    if objective.predicts_values:
        torch.testing.assert_close(objective.mean(each), torch.stack(each).mean(0))
    else:
        torch.testing.assert_close(shown, torch.stack([objective.shown(one) for one in each]).mean(0))
    assert shown.shape == (4, len(objective.names))


@pytest.mark.parametrize("objective", [CrossEntropy("abc"), Corn("abc")])
@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2), (1,), (0, 1)])
def test_the_validation_score_is_the_balanced_accuracy_of_evaluations(objective, classes):
    """Also where validation lacks a class that is predicted."""
    torch.manual_seed(0)
    truth = torch.tensor(classes)[torch.randint(len(classes), (40,))]
    label = torch.randint(3, (40,))
    metric = objective.metric()
    for rows in (slice(0, 7), slice(7, 40)):
        metric.update(label[rows], truth[rows])
    expected = balanced_accuracy(confusion_matrix(truth.numpy(), label.numpy(), 3))
    assert metric.compute().item() == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("objective", [CrossEntropy("ab"), Corn("ab"), SquaredError(PSPI)])
def test_only_classes_have_weights(objective):
    target = torch.tensor([1, 0, 1])
    weights = objective.row_weights(target, torch.tensor([0.5, 3.0]))
    assert weights.tolist() == ([1, 1, 1] if objective.predicts_values else [3, 0.5, 3])


def test_a_loss_is_for_classes_or_for_a_scale():
    assert type(objective_of("corn", "abc", None)) is Corn
    assert type(objective_of("cross_entropy", "abc", None)) is CrossEntropy
    assert type(objective_of("mse", (), PSPI)) is SquaredError
    for loss, scale in (("mse", None), ("corn", PSPI), ("cross_entropy", PSPI)):
        with pytest.raises(PainseqError, match=loss):
            objective_of(loss, "abc", scale)
