"""Files that are damaged, cut short or hostile: whatever is in them, only errors for people come out.

A valid file of each kind is changed in a value, in a key, or in its bytes, and read.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import painseq
from painseq.data.splits import Split, read_made_with, read_split, write_split
from painseq.errors import PainseqError
from painseq.evaluation.predictions import read_predictions
from painseq.evaluation.split_check import read_table
from painseq.extractors import Pixels, TimmBackbone, read_weights, save_weights
from painseq.faces.sidecar import Sidecar
from painseq.faces.track import FaceTrack
from painseq.faces.tracks import StoredTrack, TrackFolder
from painseq.features import ClipFeatures, FeatureStore, NpzFolder, StoreWriter, export_npz
from painseq.features.summary import summarise_store
from painseq.files import read_yaml
from painseq.heads import LSTM
from painseq.model.checkpoint import write_checkpoint
from painseq.records import Clip, Manifest, read_manifest
from painseq.runs import read_json
from painseq.spec import spec_of

HOSTILE: list[object] = [
    None, True, -1, 0, 0.5, 2**70, 10**12, 1e12, math.nan, math.inf, "", "x", "nan", "../../x", "os.system",
    "https://example.org/w.pth", [], [1], ["x"], {}, {"x": 1}, [[[]]], {"class_path": "os.system", "init_args": {}},
]  # fmt: skip

changed_often = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def places(value: object, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of each value in plain data."""
    found = [place] if place else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        found += places(item, (*place, key))
    return found


def changed(content: Any, data: st.DataObject) -> Any:
    """A copy in which a value is removed or replaced."""
    content = copy.deepcopy(content)
    *outer, key = data.draw(st.sampled_from(places(content)))
    inner = content
    for step in outer:
        inner = inner[step]
    if data.draw(st.booleans()):
        inner[key] = data.draw(st.sampled_from(HOSTILE))
    else:
        del inner[key]
    return content


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """Bytes that are cut short, or of which some are others."""
    if data.draw(st.booleans()):
        return content[: data.draw(st.integers(0, len(content) - 1))]
    result = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        result[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    return bytes(result)


@contextmanager
def replaced(file: Path, content: bytes) -> Iterator[None]:
    """Another content of a file for a while."""
    before = file.read_bytes() if file.is_file() else None
    file.write_bytes(content)
    try:
        yield
    finally:
        file.unlink() if before is None else file.write_bytes(before)


def only_for_people(read: Callable[[], object]) -> None:
    """Any error is one sentence or two for people."""
    try:
        read()
    except PainseqError as error:
        assert str(error).strip() and "Traceback" not in str(error)


def clip(frames: int, landmarks: bool = True) -> ClipFeatures:
    return ClipFeatures(
        torch.zeros(frames, 3, 2, 2, dtype=torch.uint8),
        torch.ones(frames, dtype=torch.bool),
        torch.arange(frames, dtype=torch.float64),
        torch.ones(frames, 5, 2) if landmarks else None,
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    pixels = Pixels(2)
    spec = {"extractor": pixels.record(), "face": {"size_px": 2}, "sampling": {"fps": 5.0}}
    with StoreWriter(tmp_path / "store", spec, "uint8", pixels) as writer:
        for number in range(3):
            writer.add(f"clip{number}", clip(number + 1, landmarks=number > 0), "d")
        writer.fail("clip3", "unreadable")
    return tmp_path / "store"


def read_store(path: Path) -> None:
    store = FeatureStore(path)
    store.check()
    summarise_store(store)
    for clip_id in store:
        store[clip_id]
        store.times_s(clip_id)


@changed_often
@given(data=st.data(), name=st.sampled_from(["store.json", "index.json"]))
def test_the_json_of_a_store(store, data, name):
    file = store / name
    whole = file.read_bytes()
    for content in (json.dumps(changed(json.loads(whole), data)).encode(), damaged(whole, data)):
        with replaced(file, content):
            only_for_people(lambda: read_store(store))
    read_store(store)


@changed_often
@given(data=st.data(), name=st.sampled_from(["shard-00000.safetensors", "pending/000-00000000.safetensors"]))
def test_the_frames_of_a_store(store, data, name):
    whole = (store / "shard-00000.safetensors").read_bytes()
    (store / "pending").mkdir(exist_ok=True)
    with replaced(store / name, damaged(whole, data)):
        only_for_people(lambda: read_store(store))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("store.json", {"spec": {}}),
        ("store.json", {"out_shape": [10**12]}),
        ("store.json", {"out_shape": []}),
        ("store.json", {"fingerprint": None}),
        ("index.json", {"clips": {"a": {"shard": "shard-00000.safetensors", "first": 0, "frames": 10**12}}}),
        ("index.json", {"shards": []}),
    ],
)
def test_a_damaged_store_says_which_file_and_what_to_do(store, name, change):
    content = json.loads((store / name).read_text())
    (store / name).write_text(json.dumps(content | change))
    with pytest.raises(PainseqError, match=rf"{name} is damaged.*(painseq extract|extract again)"):
        FeatureStore(store)


def test_frames_that_a_shard_cannot_hold(store):
    content = json.loads((store / "index.json").read_text())
    content["clips"]["clip1"]["frames"] = 10**12
    (store / "index.json").write_text(json.dumps(content))
    with pytest.raises(PainseqError, match=r"index\.json.*'clip1'.*1000000000000"):
        FeatureStore(store)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', '{"a": 1e400}', "{" * 60, "7", "\xff"])
@pytest.mark.parametrize("name", ["store.json", "index.json"])
def test_json_that_is_none(store, name, text):
    (store / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(PainseqError, match=name):
        FeatureStore(store)


@changed_often
@given(data=st.data())
def test_a_folder_of_npz(store, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("npz") / "npz"
    export_npz(FeatureStore(store), folder)

    def read() -> None:
        for clip_id in (opened := NpzFolder(folder)):
            opened[clip_id]
            opened.num_frames(clip_id), opened.num_faceless(clip_id), opened.times_s(clip_id)

    read()
    source, index, array = (folder / name for name in ("source.json", "index.csv", "clip1.npz"))
    kept = {path: path.read_bytes() for path in (source, index, array)}
    source.write_text(json.dumps(changed(json.loads(kept[source]), data)))
    only_for_people(read)
    for path, content in kept.items():
        path.write_bytes(damaged(content, data))
        only_for_people(read)
        path.write_bytes(content)
    arrays = dict(np.load(array))
    name = data.draw(st.sampled_from(sorted(arrays)))
    other = [np.array(3), np.array(["a", "b"]), np.zeros((2, 0)), np.zeros(2, complex), np.zeros((2, 3, 2, 2), ">f4")]
    arrays[name] = data.draw(st.sampled_from(other))
    np.savez(array, **arrays)
    only_for_people(read)


def test_a_small_file_of_huge_arrays_is_refused_before_it_is_read(store, tmp_path, monkeypatch):
    export_npz(FeatureStore(store), tmp_path / "npz")
    monkeypatch.setattr("painseq.features.export.MAX_CLIP_BYTES", 10**6)
    zeros = {"features": np.zeros((10**6, 1), np.float32), "present": np.ones(10**6, bool), "times_s": np.zeros(10**6)}
    np.savez_compressed(tmp_path / "npz" / "clip1.npz", **zeros)
    assert (tmp_path / "npz" / "clip1.npz").stat().st_size < 20_000
    folder = NpzFolder(tmp_path / "npz")
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: pytest.fail("it was read"))
    with pytest.raises(PainseqError, match=r"clip1\.npz.*13000384"):
        folder["clip1"]


@pytest.fixture
def checkpoint(tmp_path: Path, make_record) -> Path:
    head = LSTM((4,), 3, units=(3, 2))
    write_checkpoint(tmp_path / "best.ckpt", make_record(head=spec_of(head), in_shape=(4,)), head, None)
    return tmp_path / "best.ckpt"


@changed_often
@given(data=st.data())
def test_a_checkpoint(checkpoint, data, tmp_path_factory):
    content = torch.load(checkpoint, weights_only=True)
    path = tmp_path_factory.mktemp("ckpt") / "best.ckpt"
    record = json.loads(json.dumps(content["painseq"]))
    torch.save({**content, "painseq": changed(record, data)}, path)
    only_for_people(lambda: painseq.load(path))
    path.write_bytes(damaged(checkpoint.read_bytes(), data))
    only_for_people(lambda: painseq.load(path))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda record: record["head"]["init_args"].update(dropout=math.nan), "head.init_args.dropout"),
        (lambda record: record["head"].update(init_args={}), "LSTM"),
        (lambda record: record["head"]["init_args"].update(units=[30_000, 30_000]), "would have"),
        (lambda record: record["class_names"].pop(), "train_prior"),
        (lambda record: record.update(class_names=["a", "b"], train_prior=[0.5, 0.5]), "outputs"),
        (lambda record: record.update(fps=1e12), "fps"),
        (lambda record: record.update(in_shape=[10**12]), "in_shape"),
        (lambda record: record.update(scale={"name": "vas", "low": 0, "high": math.inf}), "scale.high"),
        (lambda record: record.update(face={"class_path": "painseq.faces.FaceCrops"}), "face crops"),
        (lambda record: record.update(extractor={}), "class"),
    ],
)
def test_a_damaged_record_names_what_is_wrong(checkpoint, change, named):
    content = torch.load(checkpoint, weights_only=True)
    change(content["painseq"])
    torch.save(content, checkpoint)
    with pytest.raises(PainseqError, match=named):
        painseq.load(checkpoint)


def test_a_compressed_checkpoint_is_refused_before_it_is_read(checkpoint, tmp_path, monkeypatch):
    import zipfile

    with zipfile.ZipFile(checkpoint) as source, zipfile.ZipFile(tmp_path / "small.ckpt", "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry), zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("it was read"))
    for read in (lambda: painseq.load(tmp_path / "small.ckpt"), lambda: read_weights(str(tmp_path / "small.pth"))):
        (tmp_path / "small.pth").write_bytes((tmp_path / "small.ckpt").read_bytes())
        with pytest.raises(PainseqError, match=r"small\.\w+.*compressed"):
            read()


@settings(changed_often, max_examples=40)
@given(data=st.data(), suffix=st.sampled_from(["safetensors", "pth"]))
def test_weights(data, suffix, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / f"w.{suffix}"
    network = TimmBackbone("test_resnet", input_size_px=32)
    if suffix == "pth":
        torch.save(dict(list(network.network.state_dict().items())[:3]), path)
    else:
        save_weights(network, path)
    path.write_bytes(damaged(path.read_bytes(), data))
    only_for_people(lambda: TimmBackbone("test_resnet", str(path), input_size_px=32))


@changed_often
@given(data=st.data())
def test_tracks(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("tracks")
    folder = TrackFolder(path, {"max_gap_s": 0.5, "locator": {"class_path": "painseq.faces.YuNet", "init_args": {}}})
    folder.begin()
    boxes, scores, points = (np.ones(shape, np.float32) for shape in ((3, 4), (3,), (3, 5, 2)))
    present = np.ones(3, bool)
    track = FaceTrack(np.arange(3.0), boxes, present, scores, points, ~present)
    folder.write(path / "a.safetensors", StoredTrack(track, 3))
    index = (path / "tracks.json").read_text()
    (path / "tracks.json").write_text(json.dumps(changed(json.loads(index), data)))
    only_for_people(folder.check)
    (path / "a.safetensors").write_bytes(damaged((path / "a.safetensors").read_bytes(), data))
    only_for_people(lambda: folder.read(path / "a.safetensors", np.arange(3.0)))


@changed_often
@given(data=st.data())
def test_faces_beside_a_video(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("faces") / "v.faces.safetensors"
    save_file({"times_s": torch.arange(3.0), "boxes": torch.ones(3, 4), "scores": torch.ones(3)}, path)
    path.write_bytes(damaged(path.read_bytes(), data))
    only_for_people(lambda: Sidecar().locate(None, np.arange(3.0), path.with_name("v.mp4")))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    clips = [Clip(f"c{n}", f"P{n % 3}", f"v{n}.mp4", "pain" if n % 2 else "calm", 0.5, 2.0, 25.0) for n in range(6)]
    return Manifest("mine", tmp_path, tuple(clips))


@changed_often
@given(data=st.data())
def test_a_split(manifest, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "split.json"
    write_split(path, Split("mine", ("P0",), ("P1",), ("P2",)), manifest, {"seed": 0})
    whole = path.read_text()
    for content in (json.dumps(changed(json.loads(whole), data)).encode(), damaged(whole.encode(), data)):
        path.write_bytes(content)
        only_for_people(lambda: read_split(path, manifest))
        only_for_people(lambda: read_made_with(path))
        only_for_people(lambda: read_table(path))
        only_for_people(lambda: read_json(path))


@changed_often
@given(data=st.data())
def test_tables(manifest, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    manifest.write_csv(folder / "manifest.csv")
    whole = (folder / "manifest.csv").read_bytes()
    cell = data.draw(st.sampled_from(["nan", "inf", "-1", "1e400", "1e12", "x" * 200_000, "\0", '"', "=1", "9" * 5000]))
    for content in (damaged(whole, data), whole.replace(b"25.0", cell.encode()), whole.replace(b"0.5", cell.encode())):
        (folder / "manifest.csv").write_bytes(content)
        only_for_people(lambda: read_manifest(folder / "manifest.csv", folder, "mine").fingerprint())
    table = "clip_id,subject_id,truth,label,prob_calm,prob_pain,frames\n" + "".join(
        f"c{n},P{n % 3},pain,calm,0.75,0.25,9\n" for n in range(6)
    )
    for content in (
        damaged(table.encode(), data),
        table.replace("0.75", cell, 1).encode(),
        table.replace("9", cell).encode(),
    ):
        (folder / "predictions.csv").write_bytes(content)
        only_for_people(lambda: read_predictions(folder / "predictions.csv"))
        only_for_people(lambda: read_table(folder / "predictions.csv"))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (BOMB, "values"),
        ("a: " + "[" * 5000 + "]" * 5000, "deep"),
        ("a: &a [*a]", "itself"),
        ("a: 2020-13-45", "month"),
        ("a: !!bool x", "x"),
        ("a: !!python/object:os.system x", "python"),
        ("- a", "keys"),
        ("a: {", "YAML"),
    ],
)
def test_yaml_that_would_grow_or_is_none(tmp_path, text, named):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(PainseqError, match=rf"(?s)c\.yaml.*{named}"):
        read_yaml(tmp_path / "c.yaml")


def test_yaml_with_a_few_aliases_is_read(tmp_path):
    (tmp_path / "c.yaml").write_text("a: &a {x: 1}\nb: [*a, *a]\n")
    assert read_yaml(tmp_path / "c.yaml") == {"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}]}
