"""Verma's recipes run whole on small generated clinical data, with py-feat's tables written from the truth."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from painseq.cli.reproduce import main
from painseq.errors import LeakError, PainseqError
from painseq.evaluation import read_predictions
from painseq.model.checkpoint import load, read_checkpoint
from painseq.studies.compare import read_runs
from painseq.studies.experiment import read_experiment
from painseq.studies.predict_part import predict_part
from painseq.studies.recipe import read_recipe
from painseq.synthetic import UNBCPlan, write_unbc
from painseq.synthetic.expression import AUS

SMALL = """
model:
  extractor: {{class_path: painseq.extractors.TimmBackbone,
    init_args: {{model: test_resnet, weights: null, input_size_px: 32{trained}}}}}
{head}
data:
  init_args:
    options:
      batch_size: 16
      face:
        class_path: painseq.faces.FaceCrops
        init_args: {{locator: {{class_path: painseq.faces.Sidecar}}, size_px: 32}}
      split: {{validation_share: 0.25, test_share: 0.25}}
threshold: {{metric: weighted_f1, inner_folds: 2}}
trainer: {{accelerator: cpu{epochs}}}
"""
TREES = "  head: {class_path: painseq.heads.GradientBoosting, init_args: {level: frame, trees: 5, min_rows: 1}}"


@pytest.fixture(scope="module")
def clinical(work):
    """Six people with two sequences of eight frames, and tables of py-feat: probabilities of eight units."""
    root = work / "unbc"
    truth = write_unbc(root, UNBCPlan(subjects=6, sequences=2, frames=8, size_px=64), seed=0)
    shown = [name for name in AUS if name != "AU45"]
    for path in sorted(truth.rglob("*.safetensors")):
        au = load_file(path)["au"]
        table = (work / "unbc_feat" / path.relative_to(truth)).with_suffix(".csv")
        table.parent.mkdir(parents=True, exist_ok=True)
        rows = [["frame", *(f"AU{int(name[2:]):02d}" for name in shown)]]
        for frame, row in enumerate(au):
            rows.append([str(frame), *(f"{row[AUS.index(name)] / 5:.3f}" for name in shown)])
        table.write_text("\n".join(map(",".join, rows)) + "\n")
    return root, work / "unbc_feat"


def run(name, clinical, tmp_path):
    """Run a recipe as the command does."""
    root, tables = clinical
    cnn = name.startswith("verma2026_cnn")
    small = SMALL.format(
        trained=", trainable: [layer4]" if cnn else "",
        head="" if cnn else TREES,
        epochs=", max_epochs: 1" if cnn else "",
    )
    (tmp_path / "small.yaml").write_text(small)
    out = tmp_path / name
    options = [] if cnn else ["--data.options.action_units", str(tables)]
    assert (
        main([name, "--root", str(root), "--out", str(out), "--", "--config", str(tmp_path / "small.yaml"), *options])
        == 0
    )
    return out, json.loads((out / "reproduction.json").read_text())


@pytest.mark.parametrize("name", ["verma2026_au", "verma2026_cnn", "verma2026_hybrid"])
def test_recipes_run_with_a_tuned_threshold_on_people_not_seen(name, clinical, tmp_path, capsys):
    out, written = run(name, clinical, tmp_path)
    record = read_checkpoint(out / "fit" / "best.ckpt").record
    assert record.threshold is not None and record.threshold.metric == "weighted_f1"
    compared = written["parts"]["test"]["threshold"]
    assert compared["thresholds"] == [record.threshold.value] and {"tuned", "at_half"} <= set(compared)
    assert not {f"unbc/{subject}" for subject in read_predictions(out / "predictions_test.csv").subject_ids} & {
        *record.fitted_on
    }
    assert [row["name"] for row in written["published"]["test"]][:3] == ["AU only", "CNN only", "AU + CNN"]
    printed = capsys.readouterr().out
    assert "Sensitivity" in printed and "LEAKY" not in "".join(map(str, out.rglob("*")))
    expected = {"verma2026_au": ["action_units"], "verma2026_cnn": ["cnn"], "verma2026_hybrid": ["cnn", "action_units"]}
    assert [stream.name for stream in record.streams] == expected[name]
    if name != "verma2026_cnn":
        assert record.streams[-1].identity["tool"] == "py-feat" and record.normalise == ("train",)


@pytest.mark.parametrize("name", ["verma2026_au_leaky", "verma2026_cnn_leaky"])
def test_leaky_recipes_carry_the_mark_everywhere(name, clinical, tmp_path, capsys, caplog):
    with caplog.at_level("INFO"):
        out, written = run(name, clinical, tmp_path)
    assert list(written["parts"]) == ["test_LEAKY"] and written["published"]["test"]
    printed = capsys.readouterr().out
    assert "test_LEAKY" in printed and printed.count("LEAKY") >= 6
    assert any("LEAKY" in line.getMessage() and line.levelname == "WARNING" for line in caplog.records)
    folder = out / "test_LEAKY"
    assert "LEAKY" in str(json.loads((folder / "metrics.json").read_text())["models"].keys())
    assert "LEAKY" in (folder / "report.html").read_text()
    for path in (out / "predictions_test_LEAKY.csv", folder / "predictions.csv"):
        assert path.read_text().splitlines()[0].endswith(",leaky")
    split = json.loads((out / "fit_LEAKY" / "run.json").read_text())["data"]["split"]
    assert split["protocol"] == "clip_holdout_LEAKY" and split["train"] == split["test"] and len(split["train"]) == 6
    scored = read_predictions(out / "predictions_test_LEAKY.csv")
    assert 0.2 < len(scored) / 96 < 0.3 and len(set(scored.subject_ids)) > 2
    with pytest.raises(PainseqError, match="allow_leaky"):
        read_runs({"leaky": out / "predictions_test_LEAKY.csv"})
    # The model is never scored as if its people were new.
    model = load(out / "fit_LEAKY" / "best.ckpt")
    assert set(model.record.fitted_on) == {f"unbc/{subject}" for subject in split["train"]}
    stored = {"data": {"init_args": {"root": str(clinical[0]), "options": {"store": str(out / "store")}}}}
    tables = {"data": {"init_args": {"options": {"action_units": str(clinical[1])}}}}
    changes = [stored] if "cnn" in name else [stored, tables]
    data = read_experiment(read_recipe(name).path, out.parent / "small.yaml", *changes).data()
    with pytest.raises(LeakError):
        predict_part(model, data, "test")
    capsys.readouterr()
    before = (folder / "metrics.json").stat().st_mtime_ns
    run(name, clinical, tmp_path)
    assert (folder / "metrics.json").stat().st_mtime_ns == before


def test_a_leaky_split_of_a_recipe_is_named(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("# A title.\nreproduce: {split: random}\n")
    with pytest.raises(PainseqError, match="clip_holdout_LEAKY"):
        read_recipe(path)
    assert read_recipe("verma2026_au_leaky").leaky and not read_recipe("verma2026_au").leaky


def test_tables_of_the_truth_have_no_blinks(clinical):
    table = next(clinical[1].rglob("*.csv")).read_text().splitlines()
    assert "AU45" not in table[0] and len(table) == 9
    assert np.isfinite([float(cell) for line in table[1:] for cell in line.split(",")]).all()
