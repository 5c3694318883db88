"""One list of suffixes decides in every data set which files are videos."""

from pathlib import Path

import pytest

from painseq.data.options import DataOptions
from painseq.data_modules import XITE, AI4Pain, BioVid, Folder
from painseq.errors import PainseqError
from painseq.video import VIDEO_SUFFIXES, bare_name

SPOKEN_OF = (
    ".webm",
    ".m4v",
    ".mts",
    ".m2ts",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".ogv",
    ".flv",
    ".3gp",
    ".mp4",
    ".mov",
    ".avi",
    ".mkv",
)
CLIPS = {
    "folder": "pain/p01_1",
    "biovid": "PartA/video/071309_w_21/071309_w_21-BL1-081",
    "ai4pain": "Validation/P1/P1_No_Pain_1",
    "ai4pain test": "Test/P1/P1_1",
    "xite": "fvf/S006/S006_0001",
}


def clips_of(name: str, root: Path) -> list[str]:
    native = DataOptions(labels="native")
    if name == "xite":
        (root / "labels.csv").write_text(f"segment,label\n{next(root.rglob('S006_*')).name},1\n")
    data = {"folder": Folder, "biovid": BioVid, "ai4pain": AI4Pain, "xite": XITE}[name.split()[0]](root, native)
    return [clip.video for clip in data.read_manifest()]


@pytest.mark.parametrize("suffix", [*SPOKEN_OF, ".MTS", ".Mpg", ".WebM"])
@pytest.mark.parametrize("name", CLIPS)
def test_a_video_is_known_by_its_suffix(tmp_path: Path, name: str, suffix: str):
    assert suffix.lower() in VIDEO_SUFFIXES
    path = tmp_path / f"{CLIPS[name]}{suffix}"
    path.parent.mkdir(parents=True)
    path.touch()
    (path.parent / "notes.txt").touch()
    other = tmp_path / "pain" / "p02_1.mp4"
    if name == "folder":
        other.touch()  # One subject alone is refused.
    found = [tmp_path / video for video in clips_of(name, tmp_path)]
    assert [video for video in found if video != other] == [path]
    assert bare_name(Path(f"a.b{suffix}")) == "a.b"


def test_one_clip_in_two_formats_is_refused(tmp_path: Path):
    for suffix in (".mts", ".mp4"):
        (tmp_path / "pain").mkdir(exist_ok=True)
        (tmp_path / f"pain/p01_1{suffix}").touch()
    with pytest.raises(PainseqError, match="pain/p01_1"):
        clips_of("folder", tmp_path)
