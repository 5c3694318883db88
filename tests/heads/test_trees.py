"""Trees kept as arrays: equal to scikit-learn's, whatever the file or device they were kept in."""

import io
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier

from painseq.errors import PainseqError
from painseq.heads import AdaBoost, GradientBoosting, HistogramBoosting, RandomForest
from painseq.heads.functionals import FUNCTIONALS, functional_names, functionals
from painseq.heads.head import Rows
from painseq.heads.trees import TreeHead

COLUMNS, SEED = 8, 0
Make = Callable[[int], TreeHead]
PAIRS: dict[str, tuple[Make, Callable[[int], object]]] = {
    "histogram": (
        lambda k: HistogramBoosting((COLUMNS,), k, "frame", trees=40),
        lambda seed: HistGradientBoostingClassifier(
            max_iter=40, learning_rate=0.05, max_depth=3, max_leaf_nodes=None, early_stopping=False, random_state=seed
        ),
    ),
    "gradient": (
        lambda k: GradientBoosting((COLUMNS,), k, "frame", trees=20),
        lambda seed: GradientBoostingClassifier(n_estimators=20, learning_rate=0.03, random_state=seed),
    ),
    "forest": (
        lambda k: RandomForest((COLUMNS,), k, "frame", trees=20),
        lambda seed: RandomForestClassifier(20, random_state=seed),
    ),
    "adaboost": (
        lambda k: AdaBoost((COLUMNS,), k, "frame", trees=20, max_depth=2),
        lambda seed: AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=20, random_state=seed),
    ),
}


def rows_of(classes: int, count: int = 200, seed: int = 0, scale: float = 1.0) -> Rows:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(count, COLUMNS)) * scale).astype(np.float32)
    noisy = x[:, :classes] + scale * rng.normal(size=(count, classes))
    weights = torch.from_numpy(rng.uniform(0.5, 2, count)).float()
    return Rows(torch.from_numpy(x), torch.ones(count, dtype=torch.bool), torch.from_numpy(noisy.argmax(1)), weights)


def fitted(make: Make, rows: Rows, validation: Rows | None = None, classes: int | None = None) -> TreeHead:
    torch.manual_seed(SEED)
    head = make(int(rows.target.max()) + 1 if classes is None else classes)
    head.fit_rows(rows, validation)
    return head.eval()


def probabilities(head: TreeHead, x: torch.Tensor) -> np.ndarray:
    return head.row_logits(x).softmax(dim=1).numpy()


def drawn_seed() -> int:
    torch.manual_seed(SEED)
    return int(torch.randint(2**31 - 1, ()))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_probabilities_are_those_of_scikit_learn(name: str, classes: int, scale: float):
    make, theirs = PAIRS[name]
    rows, others = rows_of(classes, scale=scale), rows_of(classes, 300, seed=1, scale=scale)
    head = fitted(make, rows)
    estimator = theirs(drawn_seed()).fit(rows.x.numpy(), rows.target.numpy(), rows.weights.double().numpy())
    for x in (rows.x, others.x):
        np.testing.assert_allclose(probabilities(head, x), estimator.predict_proba(x.numpy()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_values_on_a_threshold_go_the_same_way(name: str):
    make, theirs = PAIRS[name]
    rows = rows_of(2)
    whole = Rows(rows.x.mul(2).round() / 10, rows.mask, rows.target, rows.weights)
    head = fitted(make, whole)
    estimator = theirs(drawn_seed()).fit(whole.x.numpy(), whole.target.numpy(), whole.weights.double().numpy())
    at = head.threshold.float()[:, None].expand(-1, COLUMNS).contiguous()
    for x in (whole.x, at):
        np.testing.assert_allclose(probabilities(head, x), estimator.predict_proba(x.numpy()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["histogram", "gradient", "adaboost"])
def test_the_stage_with_the_least_loss_on_validation_rows_is_kept(name: str):
    make, theirs = PAIRS[name]
    rows, validation = rows_of(2, 80), rows_of(2, 60, seed=2)
    head = fitted(make, rows, validation)
    estimator = theirs(drawn_seed()).fit(rows.x.numpy(), rows.target.numpy(), rows.weights.double().numpy())
    each = np.arange(60), validation.target.numpy()
    losses = [
        np.average(-np.log(p[each]), weights=validation.weights)
        for p in estimator.staged_predict_proba(validation.x.numpy())
    ]
    expected = list(estimator.staged_predict_proba(rows.x.numpy()))[int(np.argmin(losses))]
    np.testing.assert_allclose(probabilities(head, rows.x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_a_class_without_training_rows_is_never_predicted(name: str):
    rows = rows_of(2)
    shifted = Rows(rows.x, rows.mask, rows.target * 2, rows.weights)
    validation = Rows(rows.x, rows.mask, torch.arange(200) % 3, rows.weights)
    three, two = fitted(PAIRS[name][0], shifted, validation, classes=3), fitted(PAIRS[name][0], rows)
    found = probabilities(three, rows.x)
    assert found.shape == (200, 3) and found[:, 1].max() < 1e-12
    if name == "forest":
        np.testing.assert_allclose(found[:, [0, 2]], probabilities(two, rows.x), atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_read_from_a_file_it_predicts_the_same(name: str):
    make, _ = PAIRS[name]
    rows = rows_of(3)
    head, again = fitted(make, rows), make(3)
    buffer = io.BytesIO()
    torch.save(head.state_dict(), buffer)
    buffer.seek(0)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(again.row_logits(rows.x), head.row_logits(rows.x)) and again.depth == head.depth


@pytest.mark.parametrize("make", [make for make, _ in PAIRS.values()], ids=list(PAIRS))
def test_a_device_without_float64_is_refused_in_a_sentence(make: Make):
    """No such device is here: what a tensor that is moved to it would say stands for it."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), make(2))
    moved = SimpleNamespace(device=torch.device("mps"))
    with pytest.raises(PainseqError, match=r"float64.*mps.*cpu"):
        model[1]._apply(lambda tensor: moved)
    assert model.to("cpu") is model


def test_frames_of_another_width_are_refused():
    head = fitted(PAIRS["forest"][0], rows_of(2))
    with pytest.raises(PainseqError, match=str(COLUMNS)):
        head(torch.zeros(1, 3, COLUMNS + 1), torch.ones(1, 3, dtype=torch.bool))


def test_trees_that_split_nothing_are_told(caplog: pytest.LogCaptureFixture):
    rows = rows_of(2, 12)
    fitted(lambda k: HistogramBoosting((COLUMNS,), k, "frame"), rows)
    assert "min_rows" in caplog.text and " 12 " in caplog.text


@pytest.mark.parametrize(("array", "value"), [("left", 10**6), ("right", -1), ("root", 10**6), ("feature", None)])
def test_damaged_trees_are_refused(array: str, value: int | None):
    state = fitted(PAIRS["forest"][0], rows_of(2)).state_dict()
    state[array] = state[array][:-1] if value is None else state[array].index_fill(0, torch.tensor([0]), value)
    with pytest.raises(PainseqError, match="RandomForest"):
        PAIRS["forest"][0](2).load_state_dict(state)


def test_a_ring_of_nodes_is_refused():
    state = fitted(PAIRS["forest"][0], rows_of(2)).state_dict()
    state["left"][1], state["right"][1] = 0, 0
    with pytest.raises(PainseqError, match="RandomForest"):
        PAIRS["forest"][0](2).load_state_dict(state)


@pytest.mark.parametrize("target", [torch.zeros(200, dtype=torch.int64), torch.rand(200), torch.arange(200) % 4])
def test_targets_that_no_tree_can_learn_are_refused(target: torch.Tensor):
    rows = rows_of(2)
    with pytest.raises(PainseqError, match="HistogramBoosting"):
        HistogramBoosting((COLUMNS,), 3, "frame").fit_rows(Rows(rows.x, rows.mask, target, rows.weights), None)


def expected_functionals(values: np.ndarray) -> np.ndarray:
    """(T, D) to (8, D), by numpy and SciPy."""
    if not len(values):
        return np.zeros((8, values.shape[1]))
    slope = [stats.linregress(np.arange(len(column)), column).slope if len(column) > 1 else 0 for column in values.T]
    low, high = values.min(axis=0), values.max(axis=0)
    quartiles = stats.iqr(values, axis=0)
    return np.stack([values.mean(0), values.std(0), low, high, high - low, np.median(values, 0), quartiles, slope])


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 4))
def test_functionals_are_those_of_numpy_and_scipy(seed: int, real: int, padding: int):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(real, 3)) * 10 ** rng.uniform(-3, 3, 3)
    x = torch.from_numpy(np.concatenate([values, np.full((padding, 3), np.nan)]))[None]
    mask = (torch.arange(real + padding) < real)[None]
    found = functionals(x, mask)[0].reshape(16, 3).numpy()
    expected = np.concatenate([expected_functionals(values), expected_functionals(np.diff(values, axis=0))])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_differences_are_of_frames_that_follow_each_other():
    x = torch.tensor([0.0, 1.0, 50.0, 7.0, 9.0])[None, :, None]
    mask = torch.tensor([[True, True, False, True, True]])
    found = dict(zip(functional_names(("a",)), functionals(x, mask)[0].tolist(), strict=True))
    assert len(found) == 2 * len(FUNCTIONALS)
    assert found["a diff min"] == 1 and found["a diff max"] == 2 and found["a max"] == 9
    slope = np.polyfit([0, 1, 3, 4], [0, 1, 7, 9], 1)[0]
    assert found["a slope"] == pytest.approx(slope)
