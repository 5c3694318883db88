"""Weights files: good ones, damaged ones and hostile ones."""

import json
import logging
import pickle
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError
from torch import nn

import painseq.download
from painseq.errors import PainseqError
from painseq.extractors import (
    VGG16,
    Pixels,
    TimmBackbone,
    hub,
    is_public,
    load_into,
    read_weights,
    rebuild,
    save_weights,
)
from painseq.extractors.weights import write_safetensors
from painseq.files import write_atomically

SHA256 = "0" * 63 + "a"


class _Evil:
    """Its pickle makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def test_a_pickle_with_code_is_not_run(tmp_path):
    torch.save({"w": _Evil(tmp_path / "run")}, tmp_path / "evil.pth")
    with pytest.raises(PainseqError, match=r"evil\.pth"):
        read_weights(str(tmp_path / "evil.pth"))
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Evil(tmp_path / "run"), protocol=2))
    with pytest.raises(PainseqError, match=r"plain\.pt"):
        read_weights(str(tmp_path / "plain.pt"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".h5", ".keras"])
@pytest.mark.parametrize("content", [b"", b"no weights\n", b"\xff" * 5000, b"PK\x03\x04" + b"\0" * 50])
def test_what_is_no_weights_file_is_an_error(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(PainseqError, match=rf"\bw\{suffix}"):
        read_weights(str(path))


def test_missing_files_and_unknown_kinds(tmp_path):
    with pytest.raises(PainseqError, match=r"none\.pth"):
        read_weights(str(tmp_path / "none.pth"))
    (tmp_path / "w.onnx").write_bytes(b"")
    with pytest.raises(PainseqError, match=r"(?s)(?=.*w\.onnx)(?=.*\.safetensors)(?=.*\.pth)"):
        read_weights(str(tmp_path / "w.onnx"))


def test_a_state_dict_may_lie_one_level_down(tmp_path):
    torch.save({"epoch": 3, "state_dict": {"a": torch.ones(2)}}, tmp_path / "checkpoint.pth")
    assert read_weights(str(tmp_path / "checkpoint.pth"))[0]["a"].tolist() == [1, 1]
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(PainseqError, match=r"(?s)(?=.*list\.pth)(?=.*state_dict)"):
        read_weights(str(tmp_path / "list.pth"))


@pytest.mark.parametrize(
    "source",
    [
        "https://example.org/w.pth",
        "https://example.org/w.pth#sha256=abc",
        f"http://example.org/w.pth#sha256={SHA256}",
        f"ftp://example.org/w.pth#sha256={SHA256}",
    ],
)
def test_an_address_needs_https_and_sha256(source):
    with pytest.raises(PainseqError, match=r"sha256"):
        read_weights(source)


def test_public_sources():
    assert is_public(f"https://example.org/w.pth#sha256={SHA256}")
    assert not is_public("/home/me/w.pth")


def test_an_extractor_is_published_until_its_weights_change(tmp_path, monkeypatch):
    """`fetch` is replaced: what counts is that the address and digest are asked for."""
    save_weights(TimmBackbone("test_resnet", input_size_px=32, seed=4), tmp_path / "cached")
    asked = []

    def fetch(url: str, sha256: str, name: str | None = None, from_record: bool = False) -> Path:
        asked.append((url, sha256))
        return tmp_path / "cached"

    monkeypatch.setattr(painseq.download, "fetch", fetch)
    source = f"https://example.org/w.safetensors?version=2#sha256={SHA256.upper()}"
    extractor = TimmBackbone("test_resnet", source, input_size_px=32)
    assert asked == [("https://example.org/w.safetensors?version=2", SHA256)]
    assert extractor.is_published()
    restored = rebuild(extractor.spec(), extractor.network.state_dict())
    assert restored.weights == source and not restored.is_published()  # It cannot know: it did not read them there.
    with torch.no_grad():
        next(extractor.parameters()).add_(1)
    assert not extractor.is_published()


def test_loading_is_strict_and_says_what_it_did(linear, caplog):
    tensors = {name: tensor.half() for name, tensor in linear.state_dict().items()}
    names = r"[\w.]*\w"
    done = load_into(linear, {**tensors, "head.weight": torch.ones(1)}, new=(), drop=["head"])
    assert {"4", "float16", "float32", "head.weight"} <= set(re.findall(names, done)) and "1.weight" not in done
    done = load_into(linear, tensors, new=["1"], drop=())
    assert {"2", "float16", "float32", "1.bias", "1.weight"} <= set(re.findall(names, done)) and "0.bias" not in done
    with pytest.raises(PainseqError, match=r"header\.weight"):
        load_into(linear, {**tensors, "header.weight": torch.ones(1)}, new=(), drop=["head"])
    with pytest.raises(PainseqError, match=r"\b0\.bias"):
        load_into(linear, {name: t for name, t in tensors.items() if name != "0.bias"}, new=(), drop=())
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\b0\.bias)(?=.*\(4,\))"):
        load_into(linear, {**tensors, "0.bias": torch.ones(4)}, new=(), drop=())


def test_what_was_loaded_is_logged(tmp_path, caplog):
    save_weights(TimmBackbone("test_resnet", input_size_px=32), tmp_path / "w.safetensors")
    with caplog.at_level(logging.INFO, logger="painseq"):
        extractor = TimmBackbone("test_resnet", str(tmp_path / "w.safetensors"), input_size_px=32)
    assert extractor.loaded in caplog.text


@pytest.mark.parametrize("trained_on", ["not json", '{"a": 1}', "[1]", '"biovid/1"', '["1"]'])
def test_damaged_subjects_are_an_error(tmp_path, trained_on):
    extractor = TimmBackbone("test_resnet", input_size_px=32)
    write_safetensors(tmp_path / "w.safetensors", extractor.network.state_dict(), {"trained_on": trained_on})
    with pytest.raises(PainseqError, match="trained_on"):
        TimmBackbone("test_resnet", str(tmp_path / "w.safetensors"), input_size_px=32)


@pytest.mark.parametrize("card", ["not json", "[1]", "null"])
def test_a_damaged_card_is_an_error(tmp_path, card):
    extractor = TimmBackbone("test_resnet", input_size_px=32)
    write_safetensors(tmp_path / "w.safetensors", extractor.network.state_dict(), {"card": card})
    with pytest.raises(PainseqError, match=r"(?s)(?=.*w\.safetensors)(?=.*\bcard\b)"):
        TimmBackbone("test_resnet", str(tmp_path / "w.safetensors"), input_size_px=32)


def test_weights_tell_whether_their_people_are_known(tmp_path):
    """A list of nobody in a file of an earlier version, which names a source of weights, means unknown."""

    def read(path):
        return TimmBackbone("test_resnet", str(path), input_size_px=32)

    fresh = TimmBackbone("test_resnet", input_size_px=32)
    torch.save(fresh.network.state_dict(), tmp_path / "w.pth")
    loaded = read(tmp_path / "w.pth")
    assert fresh.people_known and not loaded.people_known
    for extractor, known in ((fresh, True), (loaded, False)):
        save_weights(extractor, tmp_path / "w.safetensors")
        assert read(tmp_path / "w.safetensors").people_known is known
        tensors, metadata = read_weights(str(tmp_path / "w.safetensors"))
        del metadata["people_known"]
        for people in ([], ["biovid/1"]):
            write_safetensors(tmp_path / "old.safetensors", tensors, {**metadata, "trained_on": json.dumps(people)})
            assert read(tmp_path / "old.safetensors").people_known is (known or bool(people))
    loaded.trained_on, loaded.people_known = ("biovid/1",), True
    save_weights(loaded, tmp_path / "told.safetensors")
    assert read(tmp_path / "told.safetensors").people_known


def test_metadata_is_plain(tmp_path):
    extractor = TimmBackbone("test_resnet", input_size_px=32)
    save_weights(extractor, tmp_path / "w.safetensors")
    metadata = read_weights(str(tmp_path / "w.safetensors"))[1]
    assert json.loads(metadata["spec"]) == extractor.spec()
    assert json.loads(metadata["trained_on"]) == [] and "card" not in metadata


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "w"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"


def test_weights_trained_with_another_preprocessing_are_refused(tmp_path: Path):
    trained = VGG16(input_size_px=32, preprocessing="caffe")
    save_weights(trained, tmp_path / "heat.safetensors")
    with pytest.raises(PainseqError, match=r"(?s)(?=.*heat\.safetensors)(?=.*\bpreprocessing\b)(?=.*\bcaffe\b)"):
        VGG16(str(tmp_path / "heat.safetensors"), input_size_px=32)
    VGG16(str(tmp_path / "heat.safetensors"), input_size_px=32, preprocessing="caffe")


@pytest.mark.parametrize(
    ("wrap", "told"),
    [
        (lambda w: w, ""),
        (lambda w: {"state_dict": w, "epoch": 3}, "'state_dict'"),
        (lambda w: {"model": w, "optimizer": {"state": {0: torch.ones(1)}}}, "'model'"),
        (lambda w: {f"module.{name}": tensor for name, tensor in w.items()}, "'module.'"),
        (lambda w: {"model": {f"module._orig_mod.{n}": tensor for n, tensor in w.items()}}, "'module._orig_mod.'"),
    ],
)
def test_wrappers_around_the_weights_are_removed_and_told(tmp_path, wrap, told, caplog):
    trained = TimmBackbone("test_resnet", input_size_px=32, seed=3)
    torch.save(wrap(dict(trained.network.state_dict())), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, logger="painseq"):
        loaded = TimmBackbone("test_resnet", str(tmp_path / "w.pth"), input_size_px=32)
    assert loaded.fingerprint() == trained.fingerprint()
    messages = [message for message in caplog.messages if "reading the tensors" in message]
    assert bool(messages) == bool(told) and all(told in message for message in messages)


def test_wrappers_that_are_not_clear_are_named(tmp_path):
    weights = dict(TimmBackbone("test_resnet", input_size_px=32).network.state_dict())
    torch.save({"model": weights, "state_dict": weights}, tmp_path / "two.pth")
    with pytest.raises(PainseqError, match=r"two\.pth.*'model', 'state_dict'"):
        TimmBackbone("test_resnet", str(tmp_path / "two.pth"), input_size_px=32)
    torch.save({f"encoder.net.{name}": tensor for name, tensor in weights.items()}, tmp_path / "other.pth")
    with pytest.raises(PainseqError, match=r"other\.pth.*'encoder\.net\.'"):
        TimmBackbone("test_resnet", str(tmp_path / "other.pth"), input_size_px=32)


@pytest.mark.parametrize("weights", ["hub", "/etc/passwd", "secret.h5", 7])
def test_a_record_without_its_weights_reads_and_calls_nothing(weights, monkeypatch):
    monkeypatch.setattr("painseq.extractors.timm_backbone.announce_timm", lambda model: pytest.fail("called"))
    spec = TimmBackbone("test_resnet", input_size_px=32).spec()
    spec["init_args"]["weights"] = weights
    with pytest.raises(PainseqError, match=f"missing.*{weights}"):
        rebuild(spec)


@pytest.mark.parametrize(
    "error",
    [
        OSError("no network"),
        LocalEntryNotFoundError("not in the cache"),
        HTTPError("the proxy says no"),
        HFValidationError("not a name"),
        RuntimeError("the storage says no"),
    ],
)
def test_what_fails_at_the_hub_is_told(error, monkeypatch):
    def fails(*args, **options):
        raise error

    monkeypatch.setattr(hub, "hf_hub_download", fails)
    with pytest.raises(PainseqError, match=f"(?s)someone/net.*{error}"):
        hub.hub_file("someone/net")
    hub.announce_timm("resnet18.a1_in1k")  # timm's own error tells it.


def test_a_fault_of_the_program_is_no_failed_download(monkeypatch):
    monkeypatch.setattr(hub, "hf_hub_download", lambda: None)
    with pytest.raises(TypeError):
        hub.hub_file("someone/net")


def test_a_record_calls_no_address_unasked(tmp_path, monkeypatch):
    monkeypatch.setenv("PAINSEQ_CACHE", str(tmp_path))
    monkeypatch.delenv(painseq.download.ALLOW_HOSTS, raising=False)
    monkeypatch.setattr(painseq.download, "_download", lambda *args: pytest.fail("called"))
    save_weights(TimmBackbone("test_resnet", input_size_px=32, seed=4), tmp_path / "w.safetensors")
    spec = TimmBackbone("test_resnet", input_size_px=32).spec()
    for host in ("example.org", "github.com"):
        spec["init_args"]["weights"] = f"https://{host}/other.safetensors#sha256={SHA256}"
        with pytest.raises(PainseqError, match=rf"{host}.*{painseq.download.ALLOW_HOSTS}"):
            rebuild(spec)
    sha256 = painseq.download.sha256_of(tmp_path / "w.safetensors")
    spec["init_args"]["weights"] = f"https://example.org/w.safetensors#sha256={sha256}"
    assert rebuild(spec).is_published()


@pytest.mark.parametrize("size_px", [0, 10**5])
@pytest.mark.parametrize("make", [VGG16, Pixels, lambda **size: TimmBackbone("test_vit", **size)])
def test_crops_of_an_impossible_size(make, size_px):
    with pytest.raises(PainseqError, match=rf"input_size_px.*\b{size_px}\b"):
        make(input_size_px=size_px)
