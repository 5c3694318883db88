"""Files and folders may be named by plain strings."""

import csv

import pytest

from painseq.errors import PainseqError
from painseq.evaluation import read_predictions, read_truth
from painseq.studies.audit_check import audit_files
from painseq.studies.compare import compare_runs
from painseq.studies.evaluate_predictions import PredictionsOptions, evaluate_predictions
from painseq.studies.extract import extract_data_set
from painseq.studies.reproduce import reproduce
from painseq.studies.submit import SubmissionFormat, check_submission, read_items, write_submission


@pytest.fixture
def files(tmp_path):
    """Predictions of two models, and their truth, as strings."""
    names = ("no_pain", "high_pain")
    for model, labels in (("a", (0, 1, 0, 1)), ("b", (0, 0, 1, 1))):
        with (tmp_path / f"{model}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["clip_id", "subject_id", "label", "prob_no_pain", "prob_high_pain"])
            rows.writerows([f"c{n}", f"s{n}", names[label], 1 - label, label] for n, label in enumerate(labels))
    (tmp_path / "truth.csv").write_text("clip_id,truth\n" + "".join(f"c{n},{names[n % 2]}\n" for n in range(4)))
    return [str(tmp_path / name) for name in ("a.csv", "b.csv", "truth.csv")]


def test_predictions_are_evaluated_and_compared(files, tmp_path):
    options = PredictionsOptions(truth=read_truth(files[2]))
    for file, right in zip(files, (1.0, 0.5), strict=False):
        result = evaluate_predictions(file, f"{file}_out", options)
        assert result.evaluation.scores.accuracy == right
    runs = {name: f"{file}_out" for name, file in zip("ab", files, strict=False)}
    comparison = compare_runs(runs, str(tmp_path / "compared"))
    assert comparison.pairs and (tmp_path / "compared" / "comparison.json").is_file()


def test_a_submission_is_written_and_checked(files, tmp_path):
    layout, out = SubmissionFormat({"no_pain": "0", "high_pain": "2"}), str(tmp_path / "submission.csv")
    items = read_items(files[2])
    assert write_submission(read_predictions(files[0]), out, layout, items=items) == 4
    assert check_submission(out, layout, list(items.values())) == []


def test_mistakes_are_told_as_of_paths(tmp_path):
    missing = str(tmp_path / "none.csv")
    for call in (evaluate_predictions, read_truth, read_predictions, read_items, lambda file: audit_files([file])):
        with pytest.raises(PainseqError, match=r"none\.csv"):
            call(missing)


def test_a_store_is_extracted(electrical, tiny, tmp_path):
    from painseq.studies.experiment import read_experiment

    own = {"data": {"init_args": {"root": str(electrical)}}}
    experiment = read_experiment("configs/data/ai4pain.yaml", tiny, own)
    out = str(tmp_path / "store")
    summary = extract_data_set(experiment.data(), experiment.extractor(), out, parts=["validation"])
    assert summary.extracted and (tmp_path / "store" / "run.json").is_file()


def test_a_reproduction_names_its_root(tmp_path):
    with pytest.raises(PainseqError, match="nowhere"):
        reproduce("prajod2024_lstm", str(tmp_path / "nowhere"), str(tmp_path / "out"))
