"""An experiment read from files and mappings is the one that the command line parses."""

import pickle

import pytest
import yaml

from painseq.cli.experiment import ExperimentCLI
from painseq.errors import PainseqError
from painseq.studies.experiment import read_experiment

FILES = {
    "lstm": ["configs/data/ai4pain.yaml", "configs/head/lstm.yaml", "configs/extractor/vgg16.yaml"],
    "recipe": ["configs/reproduce/prajod2022_heat_cnn.yaml"],
    "two_stream": ["configs/demo/electrical.yaml", "configs/head/two_stream.yaml"],
    "no head": ["configs/data/unbc.yaml"],
}


class ParsedOnly(ExperimentCLI):
    """Parses, and builds nothing: weights are not at hand."""

    def instantiate_classes(self):
        pass


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_reads_what_the_command_line_parses(files):
    read = read_experiment(*files, {"trainer": {"max_epochs": 7}, "data": {"init_args": {"options": {"fps": 5}}}})
    flags = [f"--config={file}" for file in files]
    cli = ParsedOnly("evaluate", [*flags, "--trainer.max_epochs", "7", "--data.options.fps", "5"])
    assert read == cli.experiment
    assert pickle.loads(pickle.dumps(read)) == read  # noqa: S301  (our own)
    assert read.fit_options().max_epochs == 7


@pytest.mark.parametrize("study", ["audit", "crossval", "evaluate", "explain_regions", "explain_score"])
def test_the_configuration_that_a_study_leaves_can_be_given_back(study, tmp_path):
    first = read_experiment("configs/data/ai4pain.yaml", "configs/head/lstm.yaml", {"trainer": {"max_epochs": 7}})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**first.config, study: {"part": "test"}}))
    assert read_experiment(path) == first
    for flags in (["--config", str(path)], [f"--config={path}", "--trainer.max_epochs", "7"]):
        assert ParsedOnly("evaluate", flags).experiment == first


def test_builds_a_new_model_at_each_call():
    tiny = {"class_path": "TimmBackbone", "init_args": {"model": "test_resnet", "weights": None}}
    experiment = read_experiment("configs/head/lstm.yaml", {"model": {"extractor": tiny}})
    assert experiment.head_name == "LSTM"
    assert experiment.classifier() is not experiment.classifier()
    assert experiment.extractor().out_shape == experiment.classifier().extractor.out_shape


def test_changes_go_on_top():
    first = read_experiment("configs/head/lstm.yaml")
    assert first.changed({"early_stopping": {"patience": 3}}).fit_options().patience == 3
    assert first.changed() == first


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"modle": {}}, "modle"),
        ({"trainer": {"max_epoch": 3}}, "max_epoch"),
        ({"trainer": {"max_epochs": "two"}}, "two"),
        ({"model": {"head": {"class_path": "painseq.heads.LTSM"}}}, "LTSM"),
    ],
)
def test_a_mistake_is_named(content, named):
    with pytest.raises(PainseqError, match=named):
        read_experiment(content)


def test_settings_that_folds_do_not_take_are_named():
    with pytest.raises(PainseqError, match=r"trainer\.accumulate_grad_batches"):
        read_experiment({"trainer": {"accumulate_grad_batches": 4}}).fit_options()
    with pytest.raises(PainseqError, match=r"early_stopping\.monitor"):
        read_experiment({"early_stopping": {"monitor": "train_loss"}}).fit_options()


def test_without_a_data_set_or_a_head():
    experiment = read_experiment()
    for build in (experiment.data, experiment.classifier, experiment.extractor):
        with pytest.raises(PainseqError):
            build()
