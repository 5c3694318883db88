"""Regions of many clips, from Python."""

import json
from collections import Counter

import pytest
import yaml

import painseq
from painseq.data.labels import label_scheme
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import AI4Pain
from painseq.errors import PainseqError
from painseq.explain import REGIONS
from painseq.faces import FaceCrops, FaceMesh
from painseq.faces.mesh_nets import FaceLandmarkerBundle
from painseq.records import Clip
from painseq.studies.explain_regions import RegionOptions, explain_regions
from painseq.studies.explained_clips import balanced
from painseq.studies.tracks import track_faces


@pytest.fixture
def data(electrical):
    return AI4Pain(electrical, DataOptions(split=SplitOptions(protocol="official_inner")))


def test_what_is_returned_is_what_is_written(lstm, data, tmp_path):
    seen = []
    options = RegionOptions(clips=2, method="saliency", class_name="low_pain", checkpoints=(lstm,))
    prior = {"no_pain": 0.2, "low_pain": 0.4, "high_pain": 0.4}
    model = painseq.load(lstm).with_prior(prior)
    found = explain_regions(model, data, tmp_path / "out", options, on_progress=lambda *now: seen.append(now))
    assert [now[:2] for now in seen] == [(0, 2), (1, 2), (2, 2)]
    assert [row.explained for row in found.clips] == ["low_pain"] * 2 and not found.skipped
    assert [row.region for row in found.tables["low_pain"]] == list(REGIONS) and set(found.blinks) == {"low_pain"}
    facts = json.loads((tmp_path / "out" / "regions.json").read_text())
    assert facts["regions"] == {"low_pain": [row.to_dict() for row in found.tables["low_pain"]]}
    assert facts["checkpoints"] == [str(lstm)] and facts["method"] == found.details["method"] == "saliency"
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config == {
        "explain_regions": {
            "part": "test", "clips": 2, "method": "saliency", "layer": None, "class_name": "low_pain",
            "landmarks": None, "face_mesh_model": None, "yunet_model": None, "prior": prior,
        }
    }  # fmt: skip
    with pytest.raises(PainseqError, match="out"):
        explain_regions(painseq.load(lstm), data, tmp_path / "out", options)


@pytest.fixture
def real(assets, lstm, tmp_path):
    """A model that reads the face mesh, and two real videos of which one shows a face."""
    pytest.importorskip("cv2", exc_type=ImportError)
    mesh = FaceMesh(
        str(assets / "weights" / "face_mesh" / "face_landmarker.task"),
        str(assets / "weights" / "detectors" / "face_detection_yunet_2023mar.onnx"),
    )
    face = FaceCrops(mesh, size_px=32)
    rows = "".join(f"{name},{name},{name}.mp4,test\n" for name in ("single_face", "no_face"))
    (tmp_path / "clips.csv").write_text(f"clip_id,subject_id,video,part\n{rows}")
    model = painseq.load(lstm)
    model.face = face

    def data(face):
        split = SplitOptions(protocol="official")
        return AI4Pain(assets / "videos", DataOptions(split=split, face=face, fps=3), manifest=tmp_path / "clips.csv")

    return model, face, data


def test_a_face_mesh_tells_the_regions_of_a_real_face(real, tmp_path, monkeypatch):
    model, face, data = real
    options = RegionOptions(clips=2, method="saliency")
    found = explain_regions(model, data(face), tmp_path / "out", options)
    (clip,) = found.clips
    assert clip.clip.clip_id == "single_face" and list(found.skipped) == ["no_face"]
    assert clip.shares.frames == 8 and clip.shares.left_out == 0
    area = dict(zip(REGIONS, clip.shares.area, strict=True))
    assert min(area.values()) > 0.01 and 0.2 < area["outside the face"] < 0.6
    # From the points that `painseq faces` has stored, without looking for them again.
    tracked = FaceCrops(face.locator, size_px=32, tracks=tmp_path / "tracks")
    track_faces(data(face), tmp_path / "tracks")
    monkeypatch.setattr(FaceLandmarkerBundle, "points", None)
    again = explain_regions(model, data(tracked), tmp_path / "again", options)
    assert again.clips[0].shares.area == pytest.approx(clip.shares.area, abs=2e-3)


def test_another_locators_model_is_refused():
    with pytest.raises(PainseqError, match="face_mesh"):
        RegionOptions(landmarks="sidecar", yunet_model="y.onnx")


def test_clips_are_chosen_evenly_by_class_and_subject():
    scheme = label_scheme("ai4pain", "three", AI4Pain.facts)
    labels = ["No_Pain"] * 6 + ["Low_Pain"] * 2 + ["High_Pain"] * 3
    clips = [
        Clip(f"{subject}{number}", subject, "v.mp4", label) for subject in "abcd" for number, label in enumerate(labels)
    ]
    chosen = balanced(clips, scheme, 12)
    assert Counter(clip.label for clip in chosen) == {"No_Pain": 4, "Low_Pain": 4, "High_Pain": 4}
    assert Counter((clip.label, clip.subject_id) for clip in chosen).most_common(1)[0][1] == 1
    assert Counter(clip.subject_id for clip in balanced(clips, scheme, 4)) == dict.fromkeys("abcd", 1)
    assert len({clip.clip_id for clip in balanced(clips, scheme, 99)}) == len(clips)
    hidden = [Clip(str(n), "ab"[n % 2], "v.mp4") for n in range(9)]
    assert Counter(clip.subject_id for clip in balanced(hidden, scheme, 4)) == {"a": 2, "b": 2}
