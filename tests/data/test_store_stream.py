"""Features of a second store beside those of the first: fitted, scored, checked for leaks, refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import painseq as ps
from painseq.cli import main
from painseq.data.augment import Augment
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.streams import StoreStream
from painseq.data_modules import AI4Pain
from painseq.errors import LeakError, PainseqError
from painseq.faces import FaceCrops, Sidecar
from painseq.features import FeatureStore
from painseq.model.record import StreamRecord
from painseq.studies.experiment import read_experiment
from painseq.studies.predict_part import predict_part

INNER = SplitOptions(protocol="official_inner")


@pytest.fixture(scope="module")
def second(on_electrical: list[str], work: Path) -> Path:
    """Features of another network, of the same frames."""
    network = '{"class_path": "painseq.extractors.TimmBackbone", "init_args": {"model": "test_vit", "weights": null}}'
    options = ["--model.extractor", network, "--out", str(work / "second"), "--precision", "fp32"]
    assert main(["extract", *on_electrical, *options]) == 0
    return work / "second"


def options_in_yaml(store: Path, second: Path) -> dict:
    streams = ["cnn", {"class_path": "painseq.data.streams.StoreStream", "init_args": {"folder": str(second)}}]
    return {"data": {"init_args": {"options": {"store": str(store), "streams": streams}}}}


@pytest.fixture(scope="module")
def in_yaml(store: Path, second: Path, work: Path) -> list[str]:
    """The second store as it is given in YAML."""
    (work / "second.yaml").write_text(yaml.safe_dump(options_in_yaml(store, second)))
    return ["--config", str(work / "second.yaml"), "--config", "configs/head/frame_ann.yaml"]


@pytest.fixture(scope="module")
def fitted(on_electrical: list[str], in_yaml: list[str], work: Path) -> Path:
    out = work / "two_stores"
    assert main(["fit", *on_electrical, *in_yaml, "--trainer.max_epochs=1", "--out", str(out)]) == 0
    return out / "best.ckpt"


def data_of(electrical: Path, store: Path, second: Path) -> AI4Pain:
    return AI4Pain(electrical, DataOptions(split=INNER, store=store, streams=("cnn", StoreStream(second))))


def copied(second: Path, place: Path, **changes: object) -> Path:
    """The second store elsewhere, with another head."""
    shutil.copytree(second, place)
    head = json.loads((place / "store.json").read_text())
    (place / "store.json").write_text(json.dumps(head | changes))
    return place


def test_rows_of_both_stores_stand_side_by_side(electrical, store, second):
    data = data_of(electrical, store, second)
    first, other = FeatureStore(store), FeatureStore(second)
    width = first.out_shape[0]
    assert data.in_shape == (width + other.out_shape[0],)
    for sample in data.dataset("validation"):
        assert torch.equal(sample.features[:, :width], first[sample.clip_id].features)
        assert torch.equal(sample.features[:, width:], other[sample.clip_id].features.float())


def test_crops_of_videos_carry_the_second_store_beside_them(electrical, second):
    face = FaceCrops(Sidecar(), size_px=32)
    streams = ("cnn", StoreStream(second))
    options = DataOptions(split=INNER, view="pixels", face=face, fps=3.0, streams=streams)
    sample = AI4Pain(electrical, options).dataset("validation")[0]
    assert torch.equal(sample.extra, FeatureStore(second)[sample.clip_id].features.float())


def test_a_list_with_a_class_path_is_read_from_yaml(electrical, store, second, tiny):
    named = {"data": {"class_path": "AI4Pain", "init_args": {"root": str(electrical)}}}
    data = read_experiment("configs/data/ai4pain.yaml", tiny, named, options_in_yaml(store, second)).data()
    cnn, stream = data.streams
    assert cnn.name == "cnn" and isinstance(stream, StoreStream) and stream.folder == second


def test_a_model_of_two_stores_is_scored_on_both_and_refuses_videos(fitted, electrical, store, second, video, tmp_path):
    model = ps.load(fitted)
    fingerprint = FeatureStore(second).fingerprint
    assert model.record.streams[1] == StreamRecord("store", {"fingerprint": fingerprint})
    assert len(predict_part(model, data_of(electrical, store, second), "test")) == 6
    with pytest.raises(PainseqError, match="'store'"):
        model.predict(video)
    with pytest.raises(PainseqError, match=f"(?s)'store'.*fingerprint.*{fingerprint}"):
        predict_part(model, data_of(electrical, store, store), "test")
    with pytest.raises(PainseqError, match=r"streams \['cnn', 'store'\]"):
        predict_part(model, AI4Pain(electrical, DataOptions(split=INNER, store=store)), "test")


def test_whoever_the_second_extractor_has_seen_is_not_scored(fitted, electrical, store, second, tmp_path):
    data = data_of(electrical, store, second)
    person = data.split.test[0]
    leaky = data_of(electrical, store, copied(second, tmp_path / "leaky", trained_on=[f"ai4pain/{person}"]))
    assert leaky.extractor_trained_on == (f"ai4pain/{person}",)
    with pytest.raises(LeakError, match=f"ai4pain/{person}"):
        predict_part(ps.load(fitted), leaky, "test")
    experiment = read_experiment("configs/head/frame_ann.yaml")
    with pytest.raises(LeakError, match=f"ai4pain/{person}"):
        experiment.classifier().bind(leaky)


def test_folds_are_fitted_on_both_stores(on_electrical, in_yaml, work):
    folds = ["--data.options.split.protocol=subject_kfold", "--data.options.split.folds=2"]
    out = work / "two_stores_folds"
    assert main(["crossval", *on_electrical, *in_yaml, *folds, "--trainer.max_epochs=1", "--out", str(out)]) == 0
    assert (out / "predictions.csv").is_file()


def test_mirrored_crops_are_refused_beside_a_second_store(second):
    with pytest.raises(PainseqError, match=r"flip.*'store'"):
        DataOptions(view="pixels", augment=Augment(), streams=("cnn", StoreStream(second)))
    DataOptions(view="pixels", augment=Augment(flip=0), streams=("cnn", StoreStream(second)))
