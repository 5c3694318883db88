"""`painseq store` tells what a store holds, and whether it is whole."""

import json
import re
import shutil

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from painseq.features import FeatureStore


@pytest.fixture
def copied(store, tmp_path):
    return shutil.copytree(store, tmp_path / "copied")


def test_info_as_json(painseq, store):
    result = painseq("store", "info", store, "--json")
    told = json.loads(result.out)
    read = FeatureStore(store)
    assert result.code == 0
    assert (told["clips"], told["shards"], told["pending_clips"]) == (len(read), len(read.digests), 0)
    assert told["frames"] == sum(read.num_frames(clip_id) for clip_id in read)
    assert told["faceless_frames"] == sum(read.num_faceless(clip_id) for clip_id in read)
    assert told["shard_bytes"] == sum(file.stat().st_size for file in store.glob("shard-*"))
    assert (told["dtype"], told["precision"], told["out_shape"]) == ("float32", "fp32", list(read.out_shape))
    assert (told["fingerprint"], told["landmarks"]) == (read.fingerprint, read.landmarks)
    assert told["extractor"]["fingerprint"] == read.spec["extractor"]["fingerprint"]
    assert told["extractor"]["weights_in_store"] and told["extractor"]["card"] is None
    assert told["face"]["size_px"] == 32 and "Sidecar" in told["face"]["locator"]["class_path"]


def test_info_in_words_with_failures_pending_clips_and_a_card(painseq, copied):
    index = json.loads((copied / "index.json").read_text())
    clip_id, row = index["clips"].popitem()
    index["failed"] = {"S99_1": "it is [bold]no[/bold] video"}
    (copied / "index.json").write_text(json.dumps(index))
    with safe_open(copied / row.pop("shard"), "pt") as file:
        first, last = row["first"], row["first"] + row["frames"]
        tensors = {name: file.get_slice(name)[first:last] for name in file.keys() if name != "padding"}  # noqa: SIM118
    (copied / "pending").mkdir(exist_ok=True)
    table = json.dumps({clip_id: {**row, "first": 0}})
    save_file(tensors, copied / "pending" / "000-00000000.safetensors", {"clips": table})
    weights = copied / "extractor.safetensors"
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    seen = ["biovid/1", "biovid/2", "mint/1"]
    told = {"card": json.dumps({"use": "for research"}), "trained_on": json.dumps(seen)}
    save_file(load_file(weights), weights, {**metadata, **told})
    head = json.loads((copied / "store.json").read_text())
    (copied / "store.json").write_text(json.dumps({**head, "trained_on": seen}))
    result = painseq("store", "info", copied)
    words = " ".join(result.out.split())
    assert result.code == 0
    assert "S99_1" in words and "it is [bold]no[/bold] video" in words
    assert re.search(r"\b2\b[^,]*\bbiovid\b.*\b1\b[^,]*\bmint\b", words)
    assert '"use": "for research"' in words
    facts = json.loads(painseq("store", "info", copied, "--json").out)
    assert facts["pending_clips"] == 1 and list(facts["failed"]) == ["S99_1"]
    assert painseq("store", "check", copied).code == 0


def test_a_store_that_is_whole(painseq, store):
    result = painseq("store", "check", store)
    assert result.code == 0 and result.out.names(store)
    result = painseq("store", "check", store, "--json")
    assert result.code == 0 and json.loads(result.out)["problems"] == []


def test_what_is_wrong_and_how_to_repair_it(painseq, copied, on_electrical):
    shard = copied / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    result = painseq("store", "check", copied)
    assert result.code == 1
    assert result.out.names("shard-00000.safetensors", 1, "painseq extract")
    result = painseq("store", "check", copied, "--json")
    assert result.code == 1 and [problem["file"] for problem in json.loads(result.out)["problems"]] == [shard.name]
    shard.unlink()
    again = ["--dtype", "float32", "--precision", "fp32", "--out", copied]
    assert painseq("extract", *on_electrical, *again).code == 0
    assert painseq("store", "check", copied).code == 0


@pytest.mark.parametrize("command", ["info", "check"])
def test_no_store(painseq, tmp_path, command):
    result = painseq("store", command, tmp_path)
    assert result.code == 1 and result.err.names(tmp_path)
    assert painseq("store").code == 2


def test_what_the_network_was_fed_with_is_recorded_and_told_once(painseq, on_electrical, tmp_path):
    from painseq.extractors import TimmBackbone, save_weights

    save_weights(TimmBackbone("test_resnet", input_size_px=32), tmp_path / "net.safetensors")
    network = ["--model.extractor.init_args.weights", tmp_path / "net.safetensors"]
    result = painseq("extract", *on_electrical, *network, "--out", tmp_path / "s")
    assert result.code == 0, result.err
    recorded = json.loads((tmp_path / "s" / "store.json").read_text())["spec"]["extractor"]["input"]
    assert (recorded["size_px"], recorded["timm"]["size_px"]) == (32, 160)
    assert recorded["interpolation"] == recorded["timm"]["interpolation"] == "bilinear"
    assert len(re.findall(r"size_px: 32, not 160", result.log)) == 1
    # Random weights know no other pictures.
    assert "not 160" not in painseq("extract", *on_electrical, "--out", tmp_path / "random").log
