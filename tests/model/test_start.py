"""Heads that start from weights elsewhere: checkpoints, files, timm, the hub."""

import hashlib
import json
import logging
import re
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import DryRunFileInfo
from huggingface_hub.errors import LocalEntryNotFoundError

import painseq.extractors.hub
import painseq.model.start
from painseq.errors import PainseqError
from painseq.extractors.weights import write_safetensors
from painseq.heads import LinearFrames
from painseq.heads.vivit import ViViT
from painseq.model.start import start_head
from painseq.records import Seen


def head(classes=2) -> LinearFrames:
    return LinearFrames((4,), classes)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return {"layers.1.weight": torch.arange(8.0).reshape(2, 4), "layers.1.bias": torch.ones(2)}


@pytest.fixture
def checkpoint(make_record):
    def write(path: Path, weights, fitted_on) -> Path:
        record = make_record().to_dict() | {"fitted_on": fitted_on}
        state = {f"head.{name}": tensor for name, tensor in weights.items()} | {"loss_weights": torch.ones(2)}
        torch.save({"painseq": record, "state_dict": state}, path)
        return path

    return write


def same(started, weights) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in started.state_dict().items())


def test_a_file_fills_the_head_and_the_log_says_so(tmp_path, weights, caplog):
    torch.save(weights, tmp_path / "w.pth")
    started = head()
    with caplog.at_level(logging.INFO, "painseq"):
        assert start_head(started, str(tmp_path / "w.pth")) == Seen(unknown=(str(tmp_path / "w.pth"),))
    assert same(started, weights)
    (message,) = caplog.messages
    assert re.search(rf"{re.escape(str(tmp_path / 'w.pth'))}.*\b2\D+2\b", message)


def test_what_does_not_fit_stays_and_is_named(tmp_path, weights, caplog):
    torch.save({**weights, "layers.1.bias": torch.ones(3)}, tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, "painseq"):
        start_head(head(), str(tmp_path / "w.pth"))
    (message,) = caplog.messages
    assert re.search(r"w\.pth.*\b1\D+2\b.*\blayers\.1\.bias\b", message) and "layers.1.weight" not in message


def test_a_file_tells_whom_it_was_fitted_on(tmp_path, weights):
    write_safetensors(tmp_path / "w.safetensors", weights, {"trained_on": json.dumps(["biovid/7"])})
    assert start_head(head(), str(tmp_path / "w.safetensors")) == Seen(frozenset({"biovid/7"}))


def test_a_checkpoint_gives_its_head_and_whom_it_was_fitted_on(tmp_path, weights, checkpoint):
    path, started = checkpoint(tmp_path / "best.ckpt", weights, ["biovid/7", "biovid/9"]), head()
    assert start_head(started, str(path)) == Seen(frozenset({"biovid/7", "biovid/9"}))
    assert same(started, weights)
    with pytest.raises(PainseqError, match=r"other\.ckpt.*\bfitted_on\b.*'biovid/7'"):
        start_head(head(), str(checkpoint(tmp_path / "other.ckpt", weights, "biovid/7")))
    with pytest.raises(PainseqError, match=r"none\.ckpt"):
        start_head(head(), str(tmp_path / "none.ckpt"))


def test_weights_of_which_none_fits_are_an_error_that_shows_both_sides(tmp_path):
    torch.save({f"conv{index}.weight": torch.ones(3) for index in range(5)}, tmp_path / "w.pth")
    with pytest.raises(PainseqError, match=r"w\.pth.*\bLinearFrames\b") as error:
        start_head(head(), str(tmp_path / "w.pth"))
    for value in ("conv0.weight (3,)", "conv2.weight (3,)", "layers.1.weight (2, 4)", "layers.1.bias (2,)"):
        assert value in str(error.value)
    assert "conv3" not in str(error.value) and re.search(r"conv2\.weight \(3,\)\D*\b2\b", str(error.value))


def test_mistakes_in_a_file_are_its_readers(tmp_path):
    with pytest.raises(PainseqError, match=r"none\.pth"):
        start_head(head(), str(tmp_path / "none.pth"))
    with pytest.raises(PainseqError, match=r"'https://example\.org/w\.safetensors'.*#sha256="):
        start_head(head(), "https://example.org/w.safetensors")


# timm.


def test_timms_pretrained_weights(monkeypatch):
    image = timm.create_model("vit_tiny_patch16_224", depth=1)

    def pretrained(name, pretrained):
        assert name == "vit_tiny_patch16_224.augreg_in21k" and pretrained
        return image

    monkeypatch.setattr(timm, "create_model", pretrained)
    monkeypatch.setattr(painseq.model.start, "announce_timm", print)
    started = ViViT((3, 32, 32), 3, frames=2, width=192, heads=3, depth=1)
    assert start_head(started, "timm:vit_tiny_patch16_224.augreg_in21k").unknown == (
        "timm:vit_tiny_patch16_224.augreg_in21k",
    )
    assert torch.equal(started.space.blocks[0].qkv.weight, image.blocks[0].attn.qkv.weight)


def test_timm_without_a_network_or_the_model(monkeypatch):
    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(painseq.extractors.hub, "hf_hub_download", offline)
    with pytest.raises(PainseqError, match=r"vit_tiny_patch16_224.*no connection"):
        start_head(head(), "timm:vit_tiny_patch16_224")
    with pytest.raises(PainseqError, match=r"'vit_teeny'.*list_models"):
        start_head(head(), "timm:vit_teeny")


# The hub: a cache as its client lays it out.


class Hub:
    """Stands in for `hf_hub_download`: files by name, in a cache of blobs and links."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.asked = []
        self.cached, self.size_bytes = True, 12_300_000

    def put(self, name: str, content: bytes, blob: str | None = None) -> Path:
        stored = self.folder / "blobs" / (blob or hashlib.sha256(content).hexdigest())
        stored.parent.mkdir(exist_ok=True)
        stored.write_bytes(content)
        (self.folder / name).symlink_to(stored)
        return stored

    def __call__(self, repository, name, revision=None, dry_run=False):
        if dry_run and not self.cached and (self.folder / name).exists():
            return DryRunFileInfo("0" * 40, self.size_bytes, name, str(self.folder / name), False, True)
        if dry_run:
            return DryRunFileInfo("0" * 40, 1, name, str(self.folder / name), True, False)
        self.asked.append((repository, name, revision))
        if not (self.folder / name).exists():
            raise LocalEntryNotFoundError(f"cannot find {name}")
        return str(self.folder / name)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    stand_in = Hub(tmp_path)
    monkeypatch.setattr(painseq.extractors.hub, "hf_hub_download", stand_in)
    return stand_in


def as_bytes(tmp_path, weights, name="w.safetensors") -> bytes:
    path = tmp_path / name
    if path.suffix == ".safetensors":
        write_safetensors(path, weights, {})
    else:
        torch.save(weights, path)
    return path.read_bytes()


def test_the_hubs_safetensors(tmp_path, hub, weights, caplog):
    hub.put("model.safetensors", as_bytes(tmp_path, weights))
    for source, revision in (("hub:some/one", None), ("hub:some/one@v1.0", "v1.0")):
        started = head()
        assert start_head(started, source) == Seen(unknown=(source,))
        assert same(started, weights)
        assert hub.asked[-1] == ("some/one", "model.safetensors", revision)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_hubs_older_format_without_running_code(tmp_path, hub, weights):
    stored = hub.put("pytorch_model.bin", as_bytes(tmp_path, weights, "w.bin"))
    started = head()
    start_head(started, "hub:some/one")
    assert same(started, weights) and [name for _, name, _ in hub.asked] == ["model.safetensors", "pytorch_model.bin"]

    content = as_bytes(tmp_path, {"w": Path("/")}, "code.bin")
    stored.unlink()
    (tmp_path / "pytorch_model.bin").unlink()
    hub.put("pytorch_model.bin", content)
    with pytest.raises(PainseqError, match=r"pytorch_model\.bin"):
        start_head(head(), "hub:some/one")


def test_a_file_with_another_digest_than_the_hub_states_is_not_used(tmp_path, hub, weights):
    hub.put("model.safetensors", as_bytes(tmp_path, weights), blob="0" * 64)
    with pytest.raises(PainseqError, match=r"hub:some/one.*model\.safetensors.*\b0{64}\b"):
        start_head(head(), "hub:some/one")


def test_a_blob_that_is_itself_a_link_is_judged_by_its_own_name(tmp_path, hub, weights):
    stored = hub.put("model.safetensors", as_bytes(tmp_path, weights))
    shared = stored.rename(tmp_path / ("1" * 64))
    stored.symlink_to(shared)
    started = head()
    start_head(started, "hub:some/one")
    assert same(started, weights)


def test_a_cache_without_digests_is_told(tmp_path, hub, weights, caplog):
    as_bytes(tmp_path, weights, "model.safetensors")
    start_head(head(), "hub:some/one")
    assert [record.levelname for record in caplog.records if "model.safetensors" in record.getMessage()] == ["WARNING"]


def test_a_download_from_the_hub_is_told_before(tmp_path, hub, weights, caplog):
    hub.put("model.safetensors", as_bytes(tmp_path, weights))
    hub.cached = False
    with caplog.at_level(logging.INFO, "painseq"):
        start_head(head(), "hub:some/one")
    assert re.search(r"model\.safetensors of some/one.*12\.3 MB", caplog.messages[0])
    hub.size_bytes, hub.asked = 10**12, []
    with pytest.raises(PainseqError, match=r"some/one.*1000000\.0 MB"):
        start_head(head(), "hub:some/one")
    assert hub.asked == []


def test_the_hub_out_of_reach(hub, monkeypatch):
    with pytest.raises(PainseqError, match=r"some/one.*cannot find pytorch_model\.bin.*HF_HUB_OFFLINE"):
        start_head(head(), "hub:some/one")

    def broken(*args, **kwargs):
        raise TimeoutError("the read timed out")

    monkeypatch.setattr(painseq.extractors.hub, "hf_hub_download", broken)
    with pytest.raises(PainseqError, match=r"some/one.*the read timed out"):
        start_head(head(), "hub:some/one")


@pytest.mark.parametrize("source", ["hub:one", "hub:", "hub:a/b/c", "hub:some/one@"])
def test_a_repository_is_written_with_its_owner(hub, source):
    with pytest.raises(PainseqError, match="OWNER/NAME"):
        start_head(head(), source)
    assert hub.asked == []
