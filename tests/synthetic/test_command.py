import re

import pytest

from painseq.cli.synth import main
from painseq.errors import PainseqError


def test_writes_a_set_and_says_where(tmp_path, capsys):
    out = tmp_path / "heat"
    small = ["--subjects", "1", "--trials", "1", "--levels", "PA4", "--fps", "2", "--size-px", "64"]
    assert main(["biovid", str(out), *small, "--workers", "1", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    text = re.sub(r"\s+", "", printed)
    assert re.search(r"^1 [a-z]", printed, re.M) and f"{out};" in text and f"{out}_truth" in text
    assert len(list(out.rglob("*.mp4"))) == 1


def test_each_part_of_ai4pain_has_its_number_of_subjects(tmp_path):
    out = tmp_path / "shock"
    small = ["--subjects", "1", "0", "1", "--trials", "1", "--baseline-s", "10", "--fps", "1", "--size-px", "64"]
    assert main(["ai4pain", str(out), *small, "--workers", "1"]) == 0
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["Test", "Train"]


def test_an_impossible_plan_is_an_error_for_people(tmp_path):
    with pytest.raises(PainseqError, match=r"(?s)trials.*\b0"):
        main(["biovid", str(tmp_path / "heat"), "--trials", "0"])


@pytest.mark.parametrize(
    ("layout", "small", "clips"),
    [
        ("biovid-frames", ["--subjects", "1", "--trials", "4", "--levels", "PA4", "--fps", "1"], 4),
        ("unbc", ["--subjects", "2", "--sequences", "1", "--frames", "2"], 2),
        ("mintpain", ["--subjects", "1", "--trials", "1", "--sweeps", "2", "--fps", "1"], 12),
        ("xite", ["--subjects", "1", "--phasic-s", "1", "--tonic-s", "1", "--fps", "1"], 26),
        ("folder", ["--subjects", "1", "--trials", "1", "--clip-s", "1", "--fps", "1"], 3),
    ],
)
def test_every_layout_can_be_written_with_scars(layout, small, clips, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([layout, str(out), *small, "--size-px", "64", "--workers", "1", "--scars"]) == 0
    printed = capsys.readouterr().out
    text = re.sub(r"\s+", "", printed)
    assert re.search(rf"^{clips} [a-z]", printed, re.M) and f"{out};" in text and f"{out}_truth/scars.json" in text


def test_too_few_clips_for_scars_are_told_before_anything_is_drawn(tmp_path):
    small = ["--subjects", "1", "--sequences", "1", "--frames", "2", "--size-px", "64"]
    with pytest.raises(PainseqError, match=r"(?s)\b2\b.*\b1\b"):
        main(["unbc", str(tmp_path / "out"), *small, "--scars"])
    assert not (tmp_path / "out").exists()
