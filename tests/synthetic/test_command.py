import re

import pytest

from painseq.cli.synth import main
from painseq.errors import PainseqError


def test_writes_a_set_and_says_where(tmp_path, capsys):
    out = tmp_path / "heat"
    small = ["--subjects", "1", "--trials", "1", "--levels", "PA4", "--fps", "2", "--size-px", "64"]
    assert main(["biovid", str(out), *small, "--workers", "1", "--seed", "3"]) == 0
    text = re.sub(r"\s+", "", capsys.readouterr().out)
    assert f"1generatedvideosin{out};theirtruthin{out}_truth." in text
    assert len(list(out.rglob("*.mp4"))) == 1


def test_each_part_of_ai4pain_has_its_number_of_subjects(tmp_path):
    out = tmp_path / "shock"
    small = ["--subjects", "1", "0", "1", "--trials", "1", "--baseline-s", "10", "--fps", "1", "--size-px", "64"]
    assert main(["ai4pain", str(out), *small, "--workers", "1"]) == 0
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["Test", "Train"]


def test_an_impossible_plan_is_an_error_for_people(tmp_path):
    with pytest.raises(PainseqError, match="trials is 0"):
        main(["biovid", str(tmp_path / "heat"), "--trials", "0"])
