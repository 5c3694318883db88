import re

import pytest

from painseq.errors import PainseqError
from painseq.heads import LSTM, Head
from painseq.spec import build, difference, digest, spec_of


def test_an_object_tells_how_it_was_built():
    spec = spec_of(LSTM((8,), 3, units=(4, 2)))
    assert spec["class_path"] == "painseq.heads.lstm.LSTM"
    assert spec["init_args"]["units"] == [4, 2]
    assert isinstance(build(spec, Head), LSTM)


def test_an_argument_that_is_not_kept_is_an_error_that_says_how_to_mend_it():
    class Careless(Head):
        def __init__(self, in_shape: tuple[int, ...], num_classes: int, width: int = 3) -> None:
            super().__init__(in_shape, num_classes)

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
        "LSTM",
    ],
)
def test_nothing_but_the_expected_class_is_built(class_path):
    with pytest.raises(PainseqError):
        build({"class_path": class_path, "init_args": {}}, Head)


def test_differences_are_named_by_their_key():
    a, b = {"x": 1, "deep": {"fps": 30, "size": 224}}, {"x": 1, "deep": {"fps": 25, "size": 224}}
    (line,) = difference(a, b)
    assert re.fullmatch(r"deep\.fps\W+30\D+25", line)
    assert digest(a) != digest(b)
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
