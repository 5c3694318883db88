"""`painseq split`: the table, the file, and the file taken up again."""

import json

import pytest


@pytest.fixture
def on_biovid(tmp_path):
    """Ten subjects of three clips without pain and one with; the files are empty, since none is opened."""
    for n in range(10):
        subject = f"0713{n:02}_w_2{n}"
        folder = tmp_path / "biovid" / "PartA" / "video" / subject
        folder.mkdir(parents=True)
        for sample in ("BL1-001", "BL1-002", "BL1-003", "PA4-001"):
            (folder / f"{subject}-{sample}.mp4").touch()
    return ["--config", "configs/data/biovid.yaml", "--data.root", tmp_path / "biovid"]


def test_a_split_is_shown_written_and_taken_up_again(painseq, on_biovid, tmp_path):
    folds = ["--data.options.split.protocol", "subject_kfold", "--data.options.split.fold", "3"]
    result = painseq("split", *on_biovid, *folds, "--out", tmp_path / "fold3.json")
    assert result.code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.out.splitlines() if "│" in line]
    assert rows == [
        ["train", "6", "24", "18", "6", "0"],
        ["validation", "2", "8", "6", "2", "0"],
        ["test", "2", "8", "6", "2", "0"],
    ]
    written = json.loads((tmp_path / "fold3.json").read_text())
    assert written["protocol"] == "subject_kfold" and written["made_with"]["fold"] == 3

    file = ["--data.options.split.protocol", "file", "--data.options.split.file", tmp_path / "fold3.json"]
    assert painseq("split", *on_biovid, *file, "--out", tmp_path / "again.json").code == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again == written


def test_subjects_named_in_yaml(painseq, on_biovid, tmp_path):
    (tmp_path / "named.yaml").write_text(
        "data: {init_args: {options: {split: {protocol: subject_lists, train: [071300_w_20, 071301_w_21],\n"
        "  validation: [071302_w_22], test: [071303_w_23]}}}}\n"
    )
    result = painseq("split", *on_biovid, "--config", tmp_path / "named.yaml", "--out", tmp_path / "named.json")
    assert result.code == 0
    assert result.log.names("biovid", 6, "071304_w_24", "071305_w_25", 24)
    written = json.loads((tmp_path / "named.json").read_text())
    assert written["train"] == ["071300_w_20", "071301_w_21"] and written["test"] == ["071303_w_23"]


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (["--data.options.split.file", "split.json"], ("split.file", "split.json", "subject_holdout")),
        (["--data.options.split.protocol", "file", "--data.options.split.file", "no.json"], ("no.json",)),
        (["--data.options.split.protocol", "kfold"], ("loso", "subject_lists", "file", "kfold")),
        (["--data.options.split.protocol", "subject_kfold", "--data.options.split.folds", "11"], (10, 11)),
    ],
)
def test_a_split_that_cannot_be(painseq, on_biovid, tmp_path, options, facts):
    result = painseq("split", *on_biovid, *options, "--out", tmp_path / "split.json")
    assert result.code == 1 and result.err.names(*facts)
    assert not (tmp_path / "split.json").exists()
