"""A store records where the features of each clip come from; whoever reads it compares that with the manifest."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from painseq.cli import main
from painseq.data.datamodule import PainDataModule
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.streams import StoreStream
from painseq.data_modules import AI4Pain
from painseq.errors import PainseqError
from painseq.extractors import Pixels
from painseq.faces import FaceCrops, FullFrame
from painseq.features import ClipFeatures, FeatureStore, NpzFolder, StoreWriter, export_npz, extract
from painseq.features.spans import RecordedSpan
from painseq.records import Clip, Manifest
from painseq.video import SHORT_DIGEST, video_digest, write_video

INNER = SplitOptions(protocol="official_inner")


class Changed(AI4Pain):
    """The data set after its manifest has changed: in a name, or in some of its clips."""

    changes: dict[str, dict[str, object]]
    called: str

    def read_manifest(self) -> Manifest:
        clips = (replace(clip, **self.changes.get(clip.clip_id, {})) for clip in super().read_manifest())
        return Manifest(self.called, self.root, tuple(clips))


def changed(root: Path, options: DataOptions, called: str = "ai4pain", **changes: dict[str, object]) -> Changed:
    data = Changed(root, options)
    data.called, data.changes = called, changes
    return data


def without_spans(store: Path, place: Path) -> Path:
    """A store as earlier versions wrote it."""
    shutil.copytree(store, place)
    index = json.loads((place / "index.json").read_text())
    del index["spans"]
    (place / "index.json").write_text(json.dumps(index))
    return place


def warnings(caplog: pytest.LogCaptureFixture, path: Path) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and str(path) in r.getMessage()]


def first_ids(root: Path, count: int) -> list[str]:
    return [clip.clip_id for clip in AI4Pain(root, DataOptions(split=INNER)).manifest][:count]


def test_a_store_records_span_sampling_and_data_set_of_each_clip(electrical, store):
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store))
    digests = {c.clip_id: video_digest(data.manifest.path(c))[:SHORT_DIGEST] for c in data.manifest}
    expected = {
        c.clip_id: RecordedSpan("ai4pain", c.start_s, c.end_s, 3.0, None, digests[c.clip_id]) for c in data.manifest
    }
    assert FeatureStore(store).spans == expected and len({span.start_s for span in expected.values()}) > 1


@pytest.mark.parametrize("read", ["store", "setup", "everything"])
def test_features_of_other_spans_are_refused(electrical, store, read):
    ids = first_ids(electrical, 5)
    data = changed(electrical, DataOptions(split=INNER, store=store), **{i: {"end_s": 70.25} for i in ids})
    named = (
        rf"(?s)(?=.*{store})(?=.*\b5\b)(?=.*{ids[0]})(?=.*{ids[2]})(?=.*\b10 s)(?=.*\b70\.25 s)(?=.*painseq extract)"
    )
    calls = {"store": lambda: data.store, "setup": lambda: data.setup("fit"), "everything": data.everything}
    for _ in range(2):  # What was refused once is refused again.
        with pytest.raises(PainseqError, match=named) as error:
            calls[read]()
        assert ids[3] not in str(error.value)


def test_features_of_another_data_set_are_refused(electrical, store):
    with pytest.raises(PainseqError, match=r"(?=.*\bai4pain\b)(?=.*\bother\b)"):
        changed(electrical, DataOptions(split=INNER, store=store), called="other").setup("fit")


def test_a_second_store_of_other_spans_is_refused(electrical, store, tmp_path):
    shutil.copytree(store, tmp_path / "second")
    index = json.loads((tmp_path / "second" / "index.json").read_text())
    (first, *_) = index["spans"]
    index["spans"][first]["start_s"] += 0.5
    (tmp_path / "second" / "index.json").write_text(json.dumps(index))
    streams = ("cnn", StoreStream(tmp_path / "second"))
    with pytest.raises(PainseqError, match=rf"(?=.*{tmp_path / 'second'})(?=.*{first})"):
        AI4Pain(electrical, DataOptions(split=INNER, store=store, streams=streams)).setup("fit")


def test_an_evaluation_with_another_length_of_clips_is_refused(on_electrical, store, lstm, tmp_path, capsys):
    call = ["evaluate", *on_electrical, "--data.options.store", str(store), "--checkpoint", str(lstm)]
    code = main([*call, "--data.segment_s", "9", "--out", str(tmp_path / "out")])
    assert code == 1 and "9 s" in capsys.readouterr().err


def test_an_older_store_is_read_and_it_is_said_once(electrical, store, tmp_path, caplog):
    old = without_spans(store, tmp_path / "old")
    assert FeatureStore(old).spans == {}
    for _ in range(2):
        AI4Pain(electrical, DataOptions(split=INNER, store=old)).setup("fit")
    (told,) = warnings(caplog, old)
    assert str(len(FeatureStore(old))) in told and "painseq extract" in told


def test_extracted_once_more_an_older_store_knows_its_spans(electrical, store, on_electrical, tmp_path, caplog):
    old = without_spans(store, tmp_path / "old")
    shards = {file.name: file.read_bytes() for file in old.glob("shard-*")}
    assert main(["extract", *on_electrical, "--out", str(old), "--dtype", "float32", "--precision", "fp32"]) == 0
    assert FeatureStore(old).spans == FeatureStore(store).spans and FeatureStore(old).check() == []
    assert {file.name: file.read_bytes() for file in old.glob("shard-*")} == shards
    AI4Pain(electrical, DataOptions(split=INNER, store=old)).setup("fit")
    assert warnings(caplog, old) == []


def one(number: int) -> ClipFeatures:
    pixels = torch.full((3, 3, 16, 16), number, dtype=torch.uint8)
    return ClipFeatures(pixels, torch.ones(3, dtype=torch.bool), torch.arange(3.0))


def writer(path: Path) -> StoreWriter:
    pixels = Pixels(16)
    spec = {"extractor": {**pixels.spec(), "fingerprint": pixels.fingerprint()}, "face": {}, "sampling": {"fps": 1.0}}
    return StoreWriter(path, spec, "uint8", pixels)


def test_shards_and_fingerprint_do_not_depend_on_the_spans(tmp_path):
    for name, span in (("with", RecordedSpan("mine", 0.5, 3.5, 1.0, None)), ("without", None)):
        with writer(tmp_path / name) as open_store:
            open_store.add("clip", one(1), "digest", span)
    a, b = FeatureStore(tmp_path / "with"), FeatureStore(tmp_path / "without")
    assert a.digests == b.digests and a.fingerprint == b.fingerprint
    assert a.spans == {"clip": RecordedSpan("mine", 0.5, 3.5, 1.0, None)} and b.spans == {}


@pytest.mark.parametrize("tidied", [False, True])
def test_spans_survive_an_interruption(tmp_path, tidied):
    spans = {f"clip{n}": RecordedSpan("mine", float(n), None, 1.0, None) for n in range(3)}
    with pytest.raises(KeyboardInterrupt), writer(tmp_path) as open_store:
        for number, (clip_id, span) in enumerate(spans.items()):
            open_store.add(clip_id, one(number), "digest", span)
        raise KeyboardInterrupt
    if tidied:
        with writer(tmp_path):
            pass
        assert not FeatureStore(tmp_path).pending
    assert FeatureStore(tmp_path).spans == spans


def test_a_clip_that_is_extracted_anew_or_fails_has_no_old_span(tmp_path):
    with writer(tmp_path) as open_store:
        open_store.add("a", one(1), "digest", RecordedSpan("mine", 0.0, 1.0, 1.0, None))
        open_store.add("b", one(2), "digest", RecordedSpan("mine", 0.0, 1.0, 1.0, None))
    with writer(tmp_path) as open_store:
        open_store.add("a", one(3), "other", RecordedSpan("mine", 2.0, 3.0, 1.0, None))
        open_store.fail("b", "gone", changed=True)
    assert FeatureStore(tmp_path).spans == {"a": RecordedSpan("mine", 2.0, 3.0, 1.0, None)}


def test_a_damaged_span_is_told(tmp_path):
    with writer(tmp_path) as open_store:
        open_store.add("a", one(1), "digest", RecordedSpan("mine", 0.0, 1.0, 1.0, None))
    index = json.loads((tmp_path / "index.json").read_text())
    index["spans"]["a"]["start_s"] = "zero"
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(PainseqError, match=r"index\.json.*zero"):
        FeatureStore(tmp_path)


class Images(PainDataModule):
    """One clip: a folder of images, or a video."""

    name, facts = "ai4pain", AI4Pain.facts
    image_fps, video = 5.0, "c"

    def read_manifest(self) -> Manifest:
        return Manifest(self.name, self.root, (Clip("c", "s", self.video, "No_Pain", fps=self.image_fps),))


def test_images_a_second_are_compared_where_the_video_is_a_folder(tmp_path):
    import cv2

    (tmp_path / "c").mkdir()
    for number in range(6):
        cv2.imwrite(str(tmp_path / "c" / f"{number}.png"), np.full((32, 32, 3), 40 * number, np.uint8))
    options = DataOptions(labels="native", view="pixels", store=tmp_path / "store")
    data = Images(tmp_path, options)
    extract(data.manifest, FaceCrops(FullFrame(), size_px=16), Pixels(16), None, tmp_path / "store")
    digest = video_digest(tmp_path / "c", 5.0)[:SHORT_DIGEST]
    assert FeatureStore(tmp_path / "store").spans["c"] == RecordedSpan("ai4pain", 0.0, None, None, 5.0, digest)
    assert data.store is not None
    other = Images(tmp_path, options)
    other.image_fps = 10.0
    with pytest.raises(PainseqError, match=r"(?=.*\b5 images)(?=.*\b10 images)"):
        assert other.store


def test_the_nominal_rate_of_a_video_file_does_not_matter(tmp_path):
    write_video(tmp_path / "c.mp4", (np.full((32, 32, 3), 40 * n, np.uint8) for n in range(6)), 5.0)
    options = DataOptions(labels="native", view="pixels", store=tmp_path / "store")
    data = Images(tmp_path, options)
    data.video = "c.mp4"
    extract(data.manifest, FaceCrops(FullFrame(), size_px=16), Pixels(16), None, tmp_path / "store")
    other = Images(tmp_path, options)
    other.image_fps, other.video = 10.0, "c.mp4"
    assert FeatureStore(tmp_path / "store").spans["c"].image_fps is None and other.store is not None


def test_exported_features_keep_their_spans(electrical, store, tmp_path, caplog):
    export_npz(FeatureStore(store), tmp_path / "npz")
    assert NpzFolder(tmp_path / "npz").spans == FeatureStore(store).spans
    AI4Pain(electrical, DataOptions(split=INNER, store=tmp_path / "npz")).setup("fit")
    assert warnings(caplog, tmp_path) == []
    (first,) = first_ids(electrical, 1)
    with pytest.raises(PainseqError, match=first):
        assert changed(electrical, DataOptions(split=INNER, store=tmp_path / "npz"), **{first: {"end_s": 2.0}}).store
