"""Files that earlier code wrote, before modules moved: today's code reads them, and gives the same digests.

The class paths in them are those of then, on purpose. data/written_before_the_move holds generated clips, their face
tracks, and a store of features, with the extractor's weights and card, whose extraction was interrupted: the first clip
is in a shard, the second is pending, the third is missing. Do not write these files anew: what they test is that old
files stay good.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from painseq.cli import main
from painseq.extractors import Extractor, TimmBackbone, read_weights, rebuild
from painseq.faces import FaceCrops, Sidecar
from painseq.faces.tracks import TrackFolder
from painseq.features import ExtractOptions, FeatureStore, extract
from painseq.records import Manifest, read_manifest
from painseq.spec import build
from painseq.video import video_digest

OLD = Path(__file__).parent / "data" / "written_before_the_move"
VALUES = json.loads((OLD / "values.json").read_text())
STORE = VALUES["store"]
PARTS = ("features", "present", "times_s", "landmarks")


def sha256(content: bytes | torch.Tensor) -> str:
    if isinstance(content, torch.Tensor):
        content = content.contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def name_in(spec: dict[str, object]) -> str:
    return str(spec["class_path"]).rpartition(".")[2]


@pytest.fixture
def crops() -> FaceCrops:
    return FaceCrops(Sidecar(), size_px=32)


@pytest.fixture
def manifest() -> Manifest:
    return read_manifest(OLD / "videos" / "clips.csv", OLD / "videos", "mine")


def test_the_store_reads_as_it_was_written():
    store = FeatureStore(OLD / "store")
    assert store.fingerprint == STORE["fingerprint"] and store.digests == STORE["shards"]
    assert list(store.trained_on) == STORE["trained_on"]
    assert list(store) == STORE["finished"] + STORE["pending"] and list(store.pending) == STORE["pending"]
    for clip_id in store:
        assert {part: sha256(getattr(store[clip_id], part)) for part in PARTS} == STORE["clips"][clip_id]
    assert store.check() == []
    assert store.extractor().fingerprint() == STORE["extractor"]


def test_the_store_is_completed_and_what_it_holds_is_not_done_again(crops, manifest, tmp_path):
    out = tmp_path / "store"
    shutil.copytree(OLD / "store", out)
    extractor = FeatureStore(out).extractor()
    summary = extract(manifest, crops, extractor, 1.0, out)
    assert (summary.skipped, summary.extracted, summary.redone, dict(summary.failed)) == (2, 1, 0, {})
    assert extract(manifest, crops, extractor, 1.0, out).skipped == 3
    store = FeatureStore(out)
    assert store.fingerprint == STORE["fingerprint"] and not store.pending and store.check() == []
    for clip_id in STORE["finished"] + STORE["pending"]:
        assert {part: sha256(getattr(store[clip_id], part)) for part in PARTS} == STORE["clips"][clip_id]
    missing = store[STORE["missing"]]
    # Another machine rounds otherwise, and another library decodes otherwise.
    expected = load_file(OLD / "missing_clip.safetensors")["features"]
    torch.testing.assert_close(missing.features.float(), expected.float(), rtol=0.01, atol=2e-5)
    for part in ("present", "times_s", "landmarks"):
        assert sha256(getattr(missing, part)) == STORE["clips"][STORE["missing"]][part]


def test_the_command_completes_the_store_without_a_warning(tmp_path, caplog):
    """None of other crops either: the card in the weights names their classes as they were called then."""
    shutil.copytree(OLD / "store", tmp_path / "store")
    data = {
        "class_path": "Folder",
        "init_args": {
            **{"root": str(OLD / "videos"), "manifest": str(OLD / "videos" / "clips.csv"), "name": "mine"},
            "classes": ["calm", "pain"],
            "options": {
                **{"fps": 1, "labels": "native"},
                "face": {
                    "class_path": "painseq.faces.FaceCrops",
                    "init_args": {"locator": {"class_path": "painseq.faces.Sidecar"}, "size_px": 32},
                },
            },
        },
    }
    weights = str(OLD / "store" / "extractor.safetensors")
    extractor = {
        "class_path": "painseq.extractors.TimmBackbone",
        "init_args": {"model": "test_efficientnet", "weights": weights, "input_size_px": 32},
    }
    (tmp_path / "config.json").write_text(json.dumps({"data": data, "model": {"extractor": extractor}}))
    assert main(["extract", "--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "store")]) == 0
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert set(FeatureStore(tmp_path / "store")) == set(STORE["clips"])


def test_extracted_anew_the_features_are_those_of_then(crops, manifest, tmp_path):
    old = FeatureStore(OLD / "store")
    extract(manifest, crops, old.extractor(), 1.0, tmp_path / "store", options=ExtractOptions(precision="fp32"))
    new = FeatureStore(tmp_path / "store")
    assert new.fingerprint == old.fingerprint
    new.check_same(old.spec)
    for clip_id in old:
        torch.testing.assert_close(new[clip_id].features.float(), old[clip_id].features.float(), rtol=0.01, atol=2e-5)


def test_tracks_are_found_and_are_those_of_today(crops, manifest):
    folder = TrackFolder(OLD / "tracks", crops.tracking())
    folder.check()
    for clip in manifest:
        recorded = VALUES["tracks"][clip.clip_id]
        place = folder.place(manifest.path(clip), clip.start_s, clip.end_s, 1.0)
        assert place.name == recorded["file"] and sha256(place.read_bytes()) == recorded["sha256"]
        old, new = folder.read(place), crops.find_track(manifest.path(clip), clip.start_s, clip.end_s, 1.0)
        assert old.located == new.located
        for name, value in vars(new.face).items():
            if name == "most_faces":  # Not kept in files.
                continue
            np.testing.assert_array_equal(getattr(old.face, name), value)


def test_a_weights_file_reads_as_it_was_written():
    path = OLD / "store" / "extractor.safetensors"
    assert sha256(path.read_bytes()) == VALUES["weights"]["sha256"]
    tensors, metadata = read_weights(str(path))
    again = rebuild(json.loads(metadata["spec"]), tensors)
    loaded = TimmBackbone("test_efficientnet", str(path), input_size_px=32)
    assert again.fingerprint() == loaded.fingerprint() == metadata["fingerprint"] == STORE["extractor"]
    assert list(loaded.trained_on) == STORE["trained_on"] == json.loads(metadata["trained_on"])
    assert loaded.card == json.loads(metadata["card"])
    assert loaded.card["network"]["fingerprint"] == STORE["extractor"]


@pytest.mark.parametrize("name", VALUES["videos"])
def test_videos_have_the_same_digest(name):
    assert video_digest(OLD / "videos" / name) == VALUES["videos"][name]


@pytest.mark.parametrize("name", VALUES["extractors"])
def test_extractors_have_the_same_fingerprint(name):
    recorded = VALUES["extractors"][name]
    extractor = build(recorded["spec"], Extractor)
    with torch.no_grad():
        for tensor in extractor.network.state_dict().values():
            tensor.fill_(1)
    assert type(extractor).__name__ == name_in(recorded["spec"])
    assert extractor.fingerprint() == recorded["fingerprint"]


@pytest.mark.parametrize("name", VALUES["crops"])
def test_face_crops_have_the_same_fingerprint(name):
    recorded = VALUES["crops"][name]
    crops = FaceCrops.from_spec(recorded["record"])
    assert crops.fingerprint() == recorded["fingerprint"]
    assert type(crops.locator).__name__ == name_in(recorded["record"]["init_args"]["locator"])
