"""From generated image sequences and videos to scores, through the commands: UNBC-McMaster, MIntPAIN, X-ITE."""

import json
from pathlib import Path

import pytest
import torch

from painseq.cli.evaluate import main as evaluate
from painseq.cli.extract import main as extract
from painseq.cli.fit import fit
from painseq.data.options import DataOptions
from painseq.data_modules import UNBC, XITE, MIntPAIN
from painseq.evaluation import read_predictions
from painseq.synthetic import MIntPAINPlan, UNBCPlan, XITEPlan, write_mintpain, write_unbc, write_xite

SUBJECTS = 4
OWN = '{"rest": [0], "pain": ["1..4"]}'


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """Four people each, with as few and as small frames as will do."""
    made = tmp_path_factory.mktemp("made")
    write_unbc(made / "unbc", UNBCPlan(SUBJECTS, sequences=2, frames=8, fps=4, size_px=64), seed=0)
    write_mintpain(made / "mintpain", MIntPAINPlan(SUBJECTS, trials=1, sweeps=2, fps=2, size_px=64), seed=0)
    write_xite(made / "xite", XITEPlan(SUBJECTS, phasic_s=1, tonic_s=1, fps=3, size_px=64), seed=0)
    return {folder.name: folder for folder in made.iterdir()}


@pytest.mark.parametrize(
    ("name", "options", "classes"),
    [
        ("unbc", ["--data.fps", "4", "--data.target", "frame"], ["no_pain", "high_pain"]),
        ("mintpain", ["--data.fps", "2", "--data.modality", "D", "--data.options.labels", OWN], ["rest", "pain"]),
        ("xite", ["--data.view", "side"], ["no_pain", "mild_pain", "moderate_pain", "severe_pain"]),
    ],
)
def test_a_data_set_goes_all_the_way(roots, tiny, tmp_path, name, options, classes):
    data = ["--config", f"configs/data/{name}.yaml", "--config", tiny, "--data.root", str(roots[name]), *options]
    extract([*data, "--out", str(tmp_path / "store")])
    data += ["--data.options.store", str(tmp_path / "store")]
    fit([*data, "--config", "configs/head/linear_frames.yaml", "--out", str(tmp_path / "run")])
    checkpoint = tmp_path / "run" / "best.ckpt"
    record = torch.load(checkpoint, weights_only=True)["painseq"]
    assert record["class_names"] == classes and record["data"]["name"] == name
    evaluate([*data, "--checkpoint", str(checkpoint), "--out", str(tmp_path / "scores")])
    predictions = read_predictions(tmp_path / "scores" / "predictions.csv")
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert metrics["models"] and predictions.label.min() >= 0 and len(set(predictions.subject_ids)) == 1
    assert metrics["data"]["name"] == name


def test_the_truth_is_found_again(roots):
    def labels(truth: Path) -> dict[str, str]:
        rows = [line.split(",") for line in (truth / "labels.csv").read_text().splitlines()[1:]]
        return {row[0]: row[2] for row in rows}

    found = {
        "unbc": UNBC(roots["unbc"], DataOptions(labels="vas_three"), target="sequence", label="vas", fps=4),
        "mintpain": MIntPAIN(roots["mintpain"], DataOptions(labels="five"), fps=2),
        "xite": XITE(roots["xite"], DataOptions(labels="heat_four"), kind="all"),
    }
    for name, data in found.items():
        truth = labels(roots[name].with_name(f"{name}_truth"))
        clips = data.read_manifest()
        assert {clip.clip_id: clip.label for clip in clips}.items() <= truth.items() and len(clips.subjects) == SUBJECTS
        assert data.label_problems() == []
