"""Videos that a model was fitted on are recognised by their content, whatever data set and subjects are called."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

import painseq
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import AI4Pain, Folder
from painseq.features import ExtractOptions, FeatureStore, extract
from painseq.model.record import ModelRecord
from painseq.studies.audit_check import CheckOptions, audit_files
from painseq.studies.evaluate import evaluate
from painseq.studies.predict_part import predict_part, same_videos
from painseq.studies.predict_videos import predict_videos
from painseq.video import SHORT_DIGEST, video_digest


@pytest.fixture(scope="module")
def fitted(electrical, store):
    """The data that the LSTM was fitted on."""
    return AI4Pain(electrical, DataOptions(split=SplitOptions(protocol="official_inner"), store=store))


@pytest.fixture(params=["ai4pain", "renamed"])
def renamed(request, fitted, electrical, store, tmp_path):
    """The same videos under other subjects, and under the same or another data set; the test part is the old one's
    training and validation part."""
    known = [clip for clip in fitted.manifest if clip.label is not None]
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["clip_id", "subject_id", "video", "label", "start_s", "end_s"])
        for clip in known:
            end_s = "" if clip.end_s is None else clip.end_s
            table.writerow([clip.clip_id, f"x{clip.subject_id}", clip.video, clip.label, clip.start_s, end_s])
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    index = json.loads((copy / "index.json").read_text())
    for span in index["spans"].values():
        span["data_set"] = request.param
    (copy / "index.json").write_text(json.dumps(index))
    classes = {name: list(labels) for name, labels in fitted.scheme.classes.items()}
    everybody = tuple(sorted({f"x{clip.subject_id}" for clip in known}))
    split = SplitOptions("subject_lists", test=everybody)
    options = DataOptions(labels=classes, store=copy, split=split)
    return Folder(electrical, options, request.param, tmp_path / "clips.csv")


def seen_clips(fitted):
    seen = {*fitted.split.train, *fitted.split.validation}
    return [clip for clip in fitted.manifest if clip.subject_id in seen]


def test_a_checkpoint_records_the_videos_of_its_head(lstm, fitted):
    record = painseq.load(lstm).record
    expected = {video_digest(fitted.manifest.path(clip))[:SHORT_DIGEST] for clip in seen_clips(fitted)}
    assert set(record.fitted_videos) == expected and len(expected) < len(fitted.manifest)
    assert record.seen.videos == expected
    written = record.to_dict()
    del written["fitted_videos"]
    assert ModelRecord.from_dict(written).fitted_videos == ()


def test_videos_are_recognised_without_a_store_too(electrical, fitted):
    options = replace(fitted.options, store=None, view="pixels")
    assert AI4Pain(electrical, options).videos_seen() == fitted.videos_seen()
    lacking = AI4Pain(electrical, options)
    clip = lacking.manifest.clips[0]
    lacking._manifest = lacking.manifest.only([replace(clip, video="gone.mp4"), *lacking.manifest.clips[1:]])
    assert clip.clip_id not in lacking.video_digests and len(lacking.video_digests) == len(lacking.manifest) - 1


def test_an_evaluation_on_renamed_training_videos_warns_in_every_output(lstm, renamed, fitted, tmp_path, caplog):
    model = painseq.load(lstm)
    evaluate(model, renamed, tmp_path / "out")
    assert caplog.text.count("LEAK") == 1
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["same_videos"]
    known = {clip.clip_id for clip in seen_clips(fitted)}
    assert set(found) == known & {clip.clip_id for clip in renamed.clips("test")} and found
    assert "LEAK" in (tmp_path / "out" / "report.html").read_text()


def test_nothing_is_said_of_new_people_or_of_what_is_not_known(lstm, fitted, renamed, tmp_path, caplog):
    model = painseq.load(lstm)
    evaluate(model, fitted, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["same_videos"] == []
    index = renamed.options.store / "index.json"
    content = json.loads(index.read_text())
    for span in content["spans"].values():
        del span["video"]
    index.write_text(json.dumps(content))
    assert renamed.video_digests == {} and same_videos(model, renamed, "test") == ()
    model.record = replace(model.record, fitted_videos=())
    predict_part(model, renamed, "test")
    assert "LEAK" not in caplog.text


def test_a_file_of_two_people_is_not_the_same_person(lstm, renamed):
    model = painseq.load(lstm)
    told = next(clip for clip in renamed.clips("test") if clip.clip_id in same_videos(model, renamed, "test"))
    model.record = replace(model.record, fitted_on=(*model.record.fitted_on, f"{renamed.name}/{told.subject_id}"))
    assert told.clip_id not in same_videos(model, renamed, "test")


def test_a_store_of_an_earlier_version_gets_the_digests_by_the_same_extraction(
    lstm, electrical, store, fitted, tmp_path
):
    shutil.copytree(store, tmp_path / "store")
    index = tmp_path / "store" / "index.json"
    content = json.loads(index.read_text())
    expected = {clip_id: span.pop("video") for clip_id, span in content["spans"].items()}
    index.write_text(json.dumps(content))
    model = painseq.load(lstm)
    given = (fitted.whole_manifest, model.face, model.extractor, model.fps, tmp_path / "store")
    summary = extract(*given, ExtractOptions("float32", precision="fp32"))
    assert summary.skipped == summary.clips
    spans = FeatureStore(tmp_path / "store").spans
    assert {clip_id: span.video for clip_id, span in spans.items()} == expected


def test_a_prediction_of_a_training_video_is_doubtful(lstm, fitted):
    model = painseq.load(lstm)
    trained = fitted.manifest.path(seen_clips(fitted)[0])
    (of_trained,) = predict_videos(model, [trained])
    assert of_trained.prediction.fitted_on_video is True and "fitted" in of_trained.prediction.warning
    assert of_trained.prediction.to_dict()["fitted_on_video"] is True
    new = fitted.manifest.path(fitted.clips("test")[0])
    (of_new,) = predict_videos(model, [new])
    assert of_new.prediction.fitted_on_video is False and "fitted" not in (of_new.prediction.warning or "")
    model.record = replace(model.record, fitted_videos=())
    (unknown,) = predict_videos(model, [trained])
    assert unknown.prediction.fitted_on_video is None


def test_an_audit_compares_test_videos_with_those_of_a_checkpoint(lstm, fitted, electrical, tmp_path):
    table = tmp_path / "split.csv"
    rows = [(f"n{clip.subject_id}", "test", clip.video) for clip in seen_clips(fitted)[:2]]
    rows += [(f"n{clip.subject_id}", "train", clip.video) for clip in fitted.clips("test")]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("subject_id", "part", "video"), *rows])
    (findings,) = audit_files([table], CheckOptions(checkpoint=lstm, root=electrical)).findings.values()
    (leak,) = findings
    assert leak.severity == "leak" and set(leak.items) == {video for _, part, video in rows if part == "test"}
