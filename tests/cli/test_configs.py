"""Every YAML that is shipped."""

import itertools

import pytest

import painseq.heads
from painseq.cli.experiment import ExperimentCLI, with_shipped_configs
from painseq.errors import PainseqError
from painseq.files import shipped_configs
from painseq.heads import Head
from painseq.studies.experiment import read_experiment

ROOT = shipped_configs()
DATA, HEADS, EXTRACTORS = (
    sorted(path.stem for path in (ROOT / kind).glob("*.yaml")) for kind in ("data", "head", "extractor")
)
WHOLE = sorted(
    path.relative_to(ROOT).as_posix()
    for kind in ("reproduce", "demo")
    for path in (ROOT / kind).glob("*.yaml")
    if path.name != "transfer.yaml"  # A plan for `painseq transfer`.
)


def test_there_are_some():
    assert len(DATA) >= 2 and len(HEADS) >= 3 and len(EXTRACTORS) >= 3 and len(WHOLE) >= 4


def pairs() -> list[tuple[str, str, str]]:
    """Files of the three kinds, any two of which come together: their keys are apart, so a third changes nothing."""
    numbered = itertools.product(enumerate(DATA), enumerate(HEADS))
    return [(data, head, EXTRACTORS[(i + j) % len(EXTRACTORS)]) for (i, data), (j, head) in numbered]


def test_any_two_files_come_together():
    kinds = (DATA, HEADS, EXTRACTORS)
    for one, other in itertools.combinations(range(3), 2):
        assert {(each[one], each[other]) for each in pairs()} == set(itertools.product(kinds[one], kinds[other]))


@pytest.mark.parametrize(("data", "head", "extractor"), pairs())
def test_data_head_and_extractor_combine_freely(data, head, extractor):
    names = [f"configs/data/{data}.yaml", f"configs/head/{head}.yaml", f"configs/extractor/{extractor}.yaml"]
    config = read_experiment(*names).config
    assert config["data"]["class_path"].startswith("painseq.data_modules.")
    assert config["model"]["head"]["class_path"].startswith("painseq.heads.")
    assert config["model"]["extractor"]["class_path"].startswith("painseq.extractors.")
    cls = getattr(painseq.heads, config["model"]["head"]["class_path"].rpartition(".")[2])
    if cls.fitted_by_gradients:
        assert config["trainer"]["max_epochs"] >= 30 and config["early_stopping"]["patience"] >= 5


@pytest.mark.parametrize(("data", "head", "extractor"), [("ai4pain", "lstm", "vgg16"), ("biovid", "frame_ann", "timm")])
def test_they_make_what_they_say(data, head, extractor):
    names = [f"configs/data/{data}.yaml", f"configs/head/{head}.yaml", f"configs/extractor/{extractor}.yaml"]
    experiment = read_experiment(*names, {"model": {"extractor": {"init_args": {"weights": None}}}})
    module, model = experiment.data(), experiment.classifier()
    assert module.name == data
    assert module.options.face.size_px == model.extractor.input_size_px == 224
    built = model.head_factory(tuple(model.extractor.out_shape), 3)
    assert isinstance(built, Head) and type(built).__name__.lower() == head.replace("_", "")
    assert model.optimizer_factory(list(built.parameters())).param_groups[0]["lr"] < 0.01


@pytest.mark.parametrize("name", WHOLE)
def test_whole_recipes_parse(name):
    config = read_experiment(f"configs/{name}").config
    assert config["data"]["init_args"]["options"]["face"]["init_args"]["locator"]["class_path"]


@pytest.mark.parametrize("head", ["ann", "lstm"])
def test_the_recipe_of_prajod_2024_is_the_papers(head):
    config = read_experiment(f"configs/reproduce/prajod2024_{head}.yaml").config
    options, model = config["data"]["init_args"]["options"], config["model"]
    assert (
        options["fps"] == 30 and options["batch_size"] == 32 and options["face"]["init_args"]["kind"] == "landmark_box"
    )
    assert model["optimizer"]["class_path"] == "torch.optim.Adadelta" and model["optimizer"]["init_args"]["lr"] == 1.0
    assert model["class_weights"] == "inverse_frequency" and model["extractor"]["init_args"]["fc"] is True
    assert config["trainer"]["max_epochs"] == 100 and config["early_stopping"]["patience"] == 5
    assert config["early_stopping"]["monitor"] == "val_loss"


def test_a_file_of_the_users_goes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_shipped_configs(["--config=configs/head/lstm.yaml"]) == [f"--config={ROOT / 'head' / 'lstm.yaml'}"]
    assert with_shipped_configs(["--config", "head/lstm.yaml"]) == ["--config", str(ROOT / "head" / "lstm.yaml")]
    (tmp_path / "configs" / "head").mkdir(parents=True)
    (tmp_path / "configs" / "head" / "lstm.yaml").touch()
    assert with_shipped_configs(["--config", "configs/head/lstm.yaml"]) == ["--config", "configs/head/lstm.yaml"]
    with pytest.raises(PainseqError, match=r"configs/none\.yaml"):
        with_shipped_configs(["--config", "configs/none.yaml"])


@pytest.mark.parametrize("null", ["null", "~"])
def test_null_unsets_a_path(heat, tiny, null, tmp_path):
    """Below a class, jsonargparse makes the path "None" of it."""
    (tmp_path / "store.yaml").write_text("data: {init_args: {options: {store: nowhere, split: {file: nowhere}}}}\n")
    given = ["--config", "configs/data/biovid.yaml", "--config", tiny, "--config", str(tmp_path / "store.yaml")]
    keys = ["data.options.store", "data.options.split.file", "data.options.face.init_args.tracks"]
    flags = [word for key in keys for word in (f"--{key}", null)]
    for unset in (flags, [f"--{key}={null}" for key in keys]):
        cli = ExperimentCLI("evaluate", [*given, "--data.root", str(heat), *unset])
        options = cli.data().options
        assert options.store is options.split.file is options.face.tracks is None
        again = cli.experiment.data().options
        assert again.store is again.split.file is again.face.tracks is None
