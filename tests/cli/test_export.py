"""`painseq export`."""

from painseq.runtime.folder import read_folder


def test_export_writes_a_folder_and_says_how_large_it_is(painseq, ann, tmp_path):
    done = painseq("export", ann, "--out", tmp_path / "exported")
    assert done.code == 0, done.err
    record = read_folder(tmp_path / "exported")
    assert record.head.level == "frame" and record.step is None
    for name in (*record.files, "model.json"):
        assert done.names(name)
    again = painseq("export", ann, "--out", tmp_path / "exported")
    assert again.code == 1 and again.names("not empty")


def test_export_names_the_checkpoint_that_is_missing(painseq, tmp_path):
    done = painseq("export", tmp_path / "absent.ckpt", "--out", tmp_path / "exported")
    assert done.code == 1 and done.names("absent.ckpt") and not (tmp_path / "exported").exists()
