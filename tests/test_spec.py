import importlib
import re

import pytest
import torch

from painseq.errors import PainseqError
from painseq.heads import LSTM, Head
from painseq.spec import HASHED_NAMES, build, difference, digest, spec_of, with_public_paths


def test_an_object_tells_how_it_was_built():
    spec = spec_of(LSTM((8,), 3, units=(4, 2)))
    assert spec["class_path"] == "painseq.heads.LSTM"
    assert spec["init_args"]["units"] == [4, 2]
    assert isinstance(build(spec, Head), LSTM)


class Careless(Head):
    def __init__(self, in_shape: tuple[int, ...], num_classes: int, width: int = 3) -> None:
        super().__init__(in_shape, num_classes)


def test_an_argument_that_is_not_kept_is_an_error_that_says_how_to_mend_it():
    with pytest.raises(PainseqError, match=r"Careless.*'width'"):
        spec_of(Careless((8,), 3))


def test_another_package_needs_trust(tmp_path, monkeypatch):
    (tmp_path / "their_heads.py").write_text(
        "from painseq.heads import Head\nimport pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
        "class Mine(Head):\n    level = 'video'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = {"class_path": "their_heads.Mine", "init_args": {"in_shape": [4], "num_classes": 2}}
    with pytest.raises(PainseqError, match=r"their_heads\.Mine.*trust.*'their_heads'"):
        build(spec, Head)
    assert not (tmp_path / "ran").exists(), "refusing must come before importing"
    assert type(build(spec, Head, trust=["their_heads"])).__name__ == "Mine"


@pytest.mark.parametrize(
    "class_path",
    [
        "painseq.spec.importlib.import_module",
        "painseq.heads.Nothing",
        "painseq.nowhere.LSTM",
        "painseq.__main__.LSTM",
        "painseq.heads.lstm.LSTM",
        "painseq.studies.demo.Demo",
        "painseq.heads..LSTM",
        "painseq.LSTM",
        "LSTM",
    ],
)
def test_nothing_but_the_expected_class_is_built(class_path):
    with pytest.raises(PainseqError):
        build({"class_path": class_path, "init_args": {}}, Head)


@pytest.mark.parametrize(
    ("class_path", "args"),
    [
        ("painseq.heads.LSTM", {"in_shape": (4,), "num_classes": -1}),
        ("painseq.heads.LSTM", {"in_shape": (4,), "num_classes": 3, "units": ()}),
        ("painseq.heads.LSTM", {"in_shape": (4,), "num_classes": 3, "dropout": 7.0}),
        ("painseq.heads.LSTM", {"in_shape": None, "num_classes": 3}),
        ("painseq.extractors.TimmBackbone", {"model": 5}),
        ("painseq.extractors.TimmBackbone", {"model": "test_resnet", "seed": "one"}),
    ],
)
def test_arguments_that_no_object_takes_are_an_error_that_names_the_class(class_path, args):
    with pytest.raises(PainseqError, match=class_path):
        build({"class_path": class_path, "init_args": args}, torch.nn.Module)


def test_differences_are_named_by_their_key():
    a, b = {"x": 1, "deep": {"fps": 30, "size": 224}}, {"x": 1, "deep": {"fps": 25, "size": 224}}
    (line,) = difference(a, b)
    assert re.fullmatch(r"deep\.fps\W+30\D+25", line)
    assert digest(a) != digest(b)
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})


def test_classes_are_named_as_users_import_them():
    from painseq.data import Augment
    from painseq.extractors import Pixels
    from painseq.faces import FaceCrops, FullFrame

    assert spec_of(Pixels(8))["class_path"] == "painseq.extractors.Pixels"
    assert spec_of(Augment())["class_path"] == "painseq.data.Augment"
    faces = spec_of(FaceCrops(FullFrame()))
    assert faces["class_path"] == "painseq.faces.FaceCrops"
    assert faces["init_args"]["locator"] == {"class_path": "painseq.faces.FullFrame", "init_args": {}}


@pytest.mark.parametrize(("public", "hashed"), HASHED_NAMES.items())
def test_names_of_before_count_and_build_as_the_public_ones(public, hashed):
    old, new = ({"face": [{"class_path": name, "init_args": {"class_path": name}}]} for name in (hashed, public))
    assert with_public_paths(old) == new
    assert digest(old) == digest(new) and difference(old, new) == []
    room, _, name = public.rpartition(".")
    assert isinstance(getattr(importlib.import_module(room), name), type)


def test_digests_are_those_of_before():
    assert digest({"locator": {"class_path": "painseq.faces.Sidecar", "init_args": {}}}) == "24b9cc24484fc6f2"


def test_a_name_of_before_is_built():
    from painseq.faces import Locator, Sidecar

    assert type(build({"class_path": "painseq.faces.sidecar.Sidecar", "init_args": {}}, Locator)) is Sidecar


@pytest.mark.parametrize("module", ["painseq.__main__", "painseq.studies.demo", "painseq.cli.demo"])
def test_a_file_cannot_have_a_module_imported_that_holds_nothing_to_build(module, monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    with pytest.raises(PainseqError, match=re.escape(module)):
        build({"class_path": f"{module}.LSTM", "init_args": {}}, Head, trust=["painseq"])


def test_a_class_that_cannot_be_imported_by_its_name_is_not_recorded():
    class Local(LSTM):
        pass

    for head in (Local((4,), 2), type("Renamed", (LSTM,), {})((4,), 2)):
        with pytest.raises(PainseqError, match=f"{type(head).__name__}.*top level"):
            spec_of(head)
    assert spec_of(Kept((4,), 2))["class_path"].endswith("test_spec.Kept")


class Kept(LSTM):
    pass
