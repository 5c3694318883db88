import csv
import hashlib
import json

import pytest

from painseq.errors import PainseqError
from painseq.synthetic import (
    AI4PainPlan,
    BioVidPlan,
    FolderPlan,
    MIntPAINPlan,
    UNBCPlan,
    XITEPlan,
    write_ai4pain,
    write_biovid,
    write_biovid_frames,
    write_folder,
    write_mintpain,
    write_unbc,
    write_xite,
)
from painseq.video import read_timeline
from painseq.video.generated import truth_folder

HEAT = BioVidPlan(subjects=2, trials=1, fps=2.0, size_px=64)
LAYOUTS = {
    "biovid": (write_biovid, HEAT),
    "biovid-frames": (write_biovid_frames, HEAT),
    "ai4pain": (write_ai4pain, AI4PainPlan(1, 1, 0, trials=1, baseline_s=10.0, fps=1.0, size_px=64)),
    "unbc": (write_unbc, UNBCPlan(subjects=2, sequences=2, frames=4, size_px=64)),
    "mintpain": (write_mintpain, MIntPAINPlan(subjects=1, trials=1, sweeps=4, clip_s=2.0, fps=1.0, size_px=64)),
    "xite": (write_xite, XITEPlan(subjects=1, phasic_s=1.0, tonic_s=1.0, fps=2.0, size_px=64)),
    "folder": (write_folder, FolderPlan(subjects=2, trials=1, clip_s=1.0, fps=2.0, size_px=64)),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    below = tmp_path_factory.mktemp("whole")
    for name, (write, plan) in LAYOUTS.items():
        write(below / name, plan, seed=0)
    return below


@pytest.fixture(scope="module")
def scarred(tmp_path_factory):
    below = tmp_path_factory.mktemp("scarred")
    for name, (write, plan) in LAYOUTS.items():
        write(below / name, plan, seed=0, scars=True)
    return below


def scars_of(root):
    return {scar["name"]: scar for scar in json.loads((truth_folder(root) / "scars.json").read_text())}


def place(root, name, which=0):
    return root / scars_of(root)[name]["where"][which]


def contents(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and path.name != "painseq_synthetic.json"
    }


def rows(path, delimiter=","):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.mark.parametrize("name", LAYOUTS)
def test_only_what_is_listed_differs(whole, scarred, name):
    before, after = contents(whole / name), contents(scarred / name)
    if name == "unbc":
        after = {
            path.replace("Images/Images", "Images").replace("Frame_Labels/Frame_Labels", "Frame_Labels"): digest
            for path, digest in after.items()
        }
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    where = [place for scar in scars_of(scarred / name).values() for place in scar["where"]]
    # Tables, renamed folders and the sidecar of what was copied or removed follow from what is listed.
    follows = {"samples.csv", "labels.csv", *(path for path in changed if path.endswith(".faces.safetensors"))}
    listed = [
        place.replace("Frame_Labels/Frame_Labels", "Frame_Labels").replace("Images/Images", "Images") for place in where
    ]
    scars = scars_of(scarred / name)
    renamed = [scars[scar]["what"].split()[-1] for scar in ("label_out_of_range", "other_prefix") if scar in scars]
    unexplained = [
        path
        for path in changed - follows
        if not any(path.startswith(place) for place in listed) and not any(old in path for old in renamed)
    ]
    assert unexplained == []
    assert contents(truth_folder(whole / name)).keys() | {"scars.json"} == contents(truth_folder(scarred / name)).keys()


@pytest.mark.parametrize("name", ["biovid", "mintpain"])
def test_the_same_seed_gives_the_same_scars_and_another_gives_others(scarred, tmp_path, name):
    write, plan = LAYOUTS[name]
    write(tmp_path / "again", plan, seed=0, scars=True)
    assert scars_of(tmp_path / "again") == scars_of(scarred / name)
    assert contents(tmp_path / "again").keys() == contents(scarred / name).keys()
    write(tmp_path / "other", plan, seed=1, scars=True)
    assert scars_of(tmp_path / "other") != scars_of(scarred / name)


def test_a_second_run_does_not_heal(scarred):
    for name, (write, plan) in LAYOUTS.items():
        before = contents(scarred / name)
        seen = []
        write(scarred / name, plan, 0, 1, lambda done, total, seen=seen: seen.append((done, total)), scars=True)
        assert contents(scarred / name) == before
        assert len(seen) == 1 and seen[0][0] == seen[0][1]


def test_with_and_without_scars_are_different_data_sets(scarred, whole):
    with pytest.raises(PainseqError, match=r"(?s)scars\W*True\W.*None"):
        write_biovid(scarred / "biovid", HEAT, 0)
    with pytest.raises(PainseqError, match=r"(?s)scars\W*None\W.*True"):
        write_biovid(whole / "biovid", HEAT, 0, scars=True)


def test_a_set_stopped_among_its_scars_is_refused(tmp_path):
    root = tmp_path / "own"
    write, plan = LAYOUTS["folder"]
    truth = write(root, plan, 0, scars=True)
    (truth / "scars.json").rename(truth / "scars.unfinished")
    with pytest.raises(PainseqError, match=r"(?s)/own\b.*/own_truth\b"):
        write(root, plan, 0, scars=True)


def test_scars_of_a_removed_set_are_not_taken_for_those_of_the_new_one(tmp_path):
    import shutil

    root = tmp_path / "own"
    write, plan = LAYOUTS["folder"]
    write(root, plan, 0, scars=True)
    shutil.rmtree(root)
    write(root, plan, 0, scars=True)
    assert place(root, "unknown_class").is_file()


def test_biovid(scarred):
    root = scarred / "biovid"
    samples = rows(root / "samples.csv", "\t")
    assert all(row["sample_name"].endswith("  ") and row["subject_name"].endswith(" ") for row in samples)
    odd = [row for row in samples if f"-{row['class_name']}-" not in row["sample_name"]]
    assert [row["sample_name"].strip() for row in odd] == [place(root, "disagreeing_label").name]
    with pytest.raises(PainseqError):
        read_timeline(place(root, "truncated_video"))
    first, second = (place(root, "duplicate_clip", which) for which in (0, 1))
    assert first.read_bytes() == second.read_bytes() and first != second
    assert second.with_suffix(".faces.safetensors").is_file()
    assert second.stem not in {row["sample_name"].strip() for row in samples}
    assert len(read_timeline(place(root, "short_clip")).times_s) == 1


def test_biovid_frames(scarred, whole):
    root = scarred / "biovid-frames"
    first, second = (place(root, "duplicate_clip", which) for which in (0, 1))
    assert contents(first) == contents(second)
    assert [path.name for path in place(root, "short_clip").iterdir()] == ["img_00001.jpg"]
    cut = place(root, "truncated_video")
    complete = whole / "biovid-frames" / cut.relative_to(root)
    assert cut.stat().st_size == complete.stat().st_size // 2


def test_ai4pain(scarred):
    root = scarred / "ai4pain"
    assert len(read_timeline(place(root, "stray_file")).times_s) == 1
    with pytest.raises(PainseqError):
        read_timeline(place(root, "truncated_video"))
    missing = place(root, "missing_clips")
    assert not missing.exists() and list(missing.parent.glob("*.mp4"))
    assert not any("Test/" in path for scar in scars_of(root).values() for path in scar["where"])


def test_unbc(scarred):
    root = scarred / "unbc"
    assert [path.name for path in (root / "Images").iterdir()] == ["Images"]
    assert [path.name for path in (root / "Frame_Labels").iterdir()] == ["Frame_Labels"]
    missing = place(root, "missing_frame_label")
    assert not missing.exists() and len(list(missing.parent.iterdir())) == 3
    for path in scars_of(root)["finder_files"]["where"]:
        assert (root / path).name == ".DS_Store" and (root / path).is_file()


def test_mintpain(scarred):
    root = scarred / "mintpain"
    empty = place(root, "empty_folder")
    assert empty.is_dir() and not any(empty.iterdir())
    assert place(root, "label_out_of_range").name.endswith("_Label7")
    assert (place(root, "label_out_of_range") / "RGB").is_dir()
    assert place(root, "other_prefix").name.startswith("Sub1_Trial1_Sweep")


def test_xite(scarred):
    root = scarred / "xite"
    labels = {row["segment"]: row["label"] for row in rows(root / "labels.csv")}
    assert place(root, "segment_without_label").is_file()
    assert place(root, "segment_without_label").stem not in labels
    assert list(labels.values()).count("9") == 1


def test_folder(scarred):
    root = scarred / "folder"
    assert place(root, "unknown_class").parent.name == "unsure"
    assert place(root, "unnamed_subject").name == "recording.mp4"
    assert place(root, "notes").suffix == ".txt"
    assert all((root / row["video"]).is_file() for row in rows(root / "clips.csv"))
