"""Features for other tools, and from them."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.data.streams import StoreStream
from painseq.errors import PainseqError
from painseq.extractors import TimmBackbone
from painseq.features import FeatureStore, NpzFolder, export_npz, extract, open_features
from painseq.features.export import file_name


@pytest.fixture
def store(faces, extractor, videos, tmp_path) -> FeatureStore:
    extract(videos("3", "4 0 2", "1 0"), faces, extractor, 10.0, tmp_path / "store")
    return FeatureStore(tmp_path / "store")


def test_round_trip(store, tmp_path):
    export_npz(store, tmp_path / "npz")
    folder = NpzFolder(tmp_path / "npz")
    assert folder.clip_ids == store.clip_ids and folder.out_shape == store.out_shape and folder.dtype == store.dtype
    for clip_id in store:
        for name in ("features", "present", "times_s"):
            assert torch.equal(getattr(folder[clip_id], name), getattr(store[clip_id], name))
        assert folder.num_frames(clip_id) == store.num_frames(clip_id)
        assert folder.num_faceless(clip_id) == store.num_faceless(clip_id)
    assert len(folder.frames("s1/clip 1", 1, 3)) == 2
    assert folder.spec["extractor"] is None and folder.failed == {} and folder.trained_on == ()
    assert folder.landmarks == 0 and folder["s1/clip 1"].landmarks is None
    assert "s1/clip 1" in folder and "other" not in folder and len(folder) == 3
    with pytest.raises(PainseqError, match=r"'other'"):
        folder["other"]
    with (tmp_path / "npz" / "index.csv").open(newline="") as file:
        assert [row["clip_id"] for row in csv.DictReader(file)] == list(store.clip_ids)


def test_round_trip_of_landmarks(with_points, extractor, videos, tmp_path):
    extract(videos("3", "4 0 2", "1 0"), with_points, extractor, 10.0, tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    export_npz(store, tmp_path / "npz")
    folder = NpzFolder(tmp_path / "npz")
    assert folder.landmarks == store.landmarks == 5
    for clip_id in store:
        np.testing.assert_array_equal(folder[clip_id].landmarks, store[clip_id].landmarks)
        assert folder[clip_id].landmarks.dtype == torch.float32
    np.testing.assert_array_equal(folder.frames("s1/clip 1", 1, 3).landmarks, store["s1/clip 1"].landmarks[1:3])


def test_landmarks_of_another_tool(tmp_path):
    write(tmp_path / "a.npz", landmarks=np.ones((3, 68, 2)), present=np.array([1, 0, 1]))
    folder = NpzFolder(tmp_path)
    assert folder.landmarks == 68
    assert folder["a"].landmarks[:, 0, 0].isnan().tolist() == [False, True, False]


def test_open_features_tells_them_apart(store, tmp_path):
    export_npz(store, tmp_path / "npz")
    assert isinstance(open_features(tmp_path / "store"), FeatureStore)
    assert isinstance(open_features(tmp_path / "npz"), NpzFolder)
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "absent"):
        with pytest.raises(PainseqError, match=rf"\b{nothing}\b"):
            open_features(tmp_path / nothing)
    with pytest.raises(PainseqError, match=r"\bnpz\b"):
        export_npz(store, tmp_path / "npz")


def write(path, frames: int = 3, width: int = 4, **changed: object) -> None:
    arrays = {
        "features": np.ones((frames, width)),
        "present": np.ones(frames, bool),
        "times_s": np.arange(frames) / 10,
    }
    np.savez(path, **{name: array for name, array in {**arrays, **changed}.items() if array is not None})


def test_files_of_another_tool_need_no_index(tmp_path):
    write(tmp_path / "clip_a.npz")
    write(tmp_path / "clip_b.npz", frames=5)
    folder = NpzFolder(tmp_path)
    assert folder.clip_ids == ("clip_a", "clip_b") and folder.dtype == "float32" and folder.out_shape == (4,)
    assert folder["clip_b"].features.dtype == torch.float32
    assert folder.fingerprint == NpzFolder(tmp_path).fingerprint


@pytest.mark.parametrize(
    ("changed", "values"),
    [
        ({"present": None}, "'present'"),
        ({"features": np.ones((2, 4))}, r"(?=.*\b2\b)(?=.*\b3\b)"),
        ({"features": np.ones((3, 5))}, r"(?=.*\(5,\))(?=.*\(4,\))"),
        ({"features": np.ones((3, 4), np.int64)}, "int64"),
        ({"features": np.array([{}] * 3)}, "allow_pickle"),
        ({"features": np.ones((3, 4), np.float16)}, r"(?=.*float16)(?=.*float32)"),
        ({"features": np.array([[1, 1, 1, 1], [1, 1, np.nan, 1], [1] * 4])}, r"(?=.*\bframe 1\b)(?=.*\bcolumn 2\b)"),
        ({"times_s": np.array([0, 0.2, 0.2])}, r"(?=.*\bframe 2\b)(?=.*times_s)"),
        ({"times_s": np.array([0, np.nan, 0.2])}, r"(?=.*nan)(?=.*times_s)"),
        ({"present": np.array([1, 0.4, 0])}, r"(?=.*0\.4)(?=.*present)"),
        ({"landmarks": np.ones((3, 68, 2))}, r"(?=.*\b68\b)(?=.*\b0\b)(?=.*landmarks)"),
        ({"landmarks": np.ones((2, 68, 2))}, r"\(2, 68, 2\)"),
        ({"landmarks": np.ones((3, 68))}, r"\(3, 68\)"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, changed, values):
    write(tmp_path / "a.npz")
    write(tmp_path / "b.npz", **changed)
    with pytest.raises(PainseqError, match=rf"(?s)(?=.*b\.npz)(?=.*{values})"):
        NpzFolder(tmp_path)["b"]


def test_frames_without_a_face_may_hold_anything(tmp_path):
    values = np.array([[1, 2], [np.nan, np.inf], [3, 4]])
    write(tmp_path / "a.npz", features=values, present=np.array([True, False, True]))
    assert NpzFolder(tmp_path)["a"].features.tolist() == [[1, 2], [0, 0], [3, 4]]


def test_hostile_folders(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(PainseqError, match=r"a\.npz"):
        _ = NpzFolder(tmp_path).out_shape
    (tmp_path / "index.csv").write_text("clip_id,file\na,a.npz\na,b.npz\n")
    with pytest.raises(PainseqError, match=r"(?s)(?=.*index\.csv)(?=.*'a')"):
        NpzFolder(tmp_path)
    (tmp_path / "index.csv").write_text("clip_id,file\na,../../secret.npz\n")
    with pytest.raises(PainseqError, match=r"secret\.npz"):
        NpzFolder(tmp_path)
    (tmp_path / "index.csv").write_text("id,file\na,a.npz\n")
    with pytest.raises(PainseqError, match=r"(?s)(?=.*index\.csv)(?=.*clip_id)"):
        NpzFolder(tmp_path)


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), unique=True, min_size=2, max_size=5))
def test_file_names_are_safe_and_different(clip_ids):
    names = [file_name(clip_id) for clip_id in clip_ids]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.endswith(".npz") and len(name) < 130
        assert not set(name) & set('/\\:*?"<>|\0') and not name.startswith(".")


@pytest.mark.parametrize(
    "trained_on",
    ["mine/P01", {"mine": "P01"}, 7, [1], ["P01"], ["mine/"], ["/P01"], ["mine/P01", None], [["mine/P01"]]],
)
def test_the_people_of_a_folder_are_a_list_of_names_with_their_data_set(tmp_path, trained_on):
    write(tmp_path / "a.npz")
    (tmp_path / "source.json").write_text(json.dumps({"trained_on": trained_on}))
    with pytest.raises(PainseqError, match=r"source\.json.*trained_on"):
        NpzFolder(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", "7", "{"])
def test_a_damaged_source_is_an_error(tmp_path, content):
    write(tmp_path / "a.npz")
    (tmp_path / "source.json").write_text(content)
    with pytest.raises(PainseqError, match=r"source\.json"):
        NpzFolder(tmp_path)


def test_whether_the_people_of_a_folder_are_known(store, tmp_path):
    export_npz(store, tmp_path / "npz")
    assert NpzFolder(tmp_path / "npz").people_known
    store.people_known, store.trained_on = False, ("mine/P01",)
    export_npz(store, tmp_path / "unknown")
    folder = NpzFolder(tmp_path / "unknown")
    assert folder.trained_on == ("mine/P01",) and not folder.people_known
    for content, known in (({"trained_on": []}, True), ({"trained_on": None}, False), ({"trained_on": ["a/b"]}, True)):
        (tmp_path / "npz" / "source.json").write_text(json.dumps(content))
        assert NpzFolder(tmp_path / "npz").people_known is known
    (tmp_path / "npz" / "source.json").unlink()
    assert not NpzFolder(tmp_path / "npz").people_known


def test_a_folder_of_npz_is_identified_by_the_pipeline_in_its_source(store, faces, videos, tmp_path):
    other = TimmBackbone("test_resnet", input_size_px=32, seed=5)
    extract(videos("3", "4 0 2", "1 0"), faces, other, 10.0, tmp_path / "other")
    export_npz(store, tmp_path / "npz")
    export_npz(FeatureStore(tmp_path / "other"), tmp_path / "other_npz")
    streams = [StoreStream(tmp_path / name) for name in ("npz", "other_npz")]
    assert streams[0].width == streams[1].width and streams[0].identity != streams[1].identity
    assert NpzFolder(tmp_path / "npz").spec["source"] == store.fingerprint
    (tmp_path / "npz" / "source.json").write_text(json.dumps({"trained_on": [], "fingerprint": 7}))
    with pytest.raises(PainseqError, match=r"source\.json.*fingerprint"):
        NpzFolder(tmp_path / "npz")
