"""What is run: every command on small generated data, and on the real videos where they are.

The old side's generated data are read by both sides. `synth` itself is compared by what each side writes.
"""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from safetensors import safe_open
from unchanged_parts.side import Dialect

TINY = """\
# The smallest network of timm on small crops; boxes and landmarks from the generator's sidecars.
data:
  init_args:
    options:
      fps: 3
      face:
        class_path: painseq.faces.FaceCrops
        init_args: {locator: {class_path: painseq.faces.Sidecar}, size_px: 32}
model:
  extractor:
    class_path: painseq.extractors.TimmBackbone
    init_args: {model: test_resnet, weights: null, input_size_px: 32}
trainer: {max_epochs: 2, enable_progress_bar: false, enable_model_summary: false, accelerator: cpu}
"""
VIVIT = (
    "{class_path: painseq.heads.ViViT, init_args: "
    "{frames: 18, tubelet: [2, 16], width: 16, depth: 2, heads: 2, pool: mean, dropout: 0.1}}"
)
PIXELS = "{class_path: painseq.extractors.Pixels, init_args: {input_size_px: 32}}"
REAL = ("single_face.mp4", "face_noface.mov", "no_face.mp4")
ONCE = "--trainer.max_epochs=1"

COPIED = {"store_resumed": "store_part"}
"""Step -> the old side's step whose folder is copied before it runs: the new code completes what the old began."""
NEEDED_TOO = {"transfer": ("fit_heat_cnn", "synth_electrical"), "fit_units": ("synth_electrical",)}
"""Step -> steps that it needs though its arguments do not name them."""
PICTURES = ("synth_heat", "synth_electrical", "synth_clinical")
"""Steps whose pictures and videos are compared too; those of the others hold words."""


class Inputs:
    """Files that both sides are given, written into a folder.

    Args:
        folder: of these files.
        old: folder of the old side's outputs.
        assets: real videos and weights; None where they are not.
    """

    def __init__(self, folder: Path, old: Path, assets: Path | None) -> None:
        self.folder, self.old, self.assets = folder, old, assets
        self.tiny, self.clips = folder / "tiny.yaml", folder / "clips.csv"
        self.plans = {form: folder / f"plan_of_{form}.yaml" for form in ("arguments", "mappings")}
        self.units = folder / "openface"
        folder.mkdir(parents=True, exist_ok=True)
        self.tiny.write_text(TINY, encoding="utf-8")
        for form, path in self.plans.items():
            path.write_text(yaml.safe_dump(self._plan(form)), encoding="utf-8")
        rows = "".join(f"{Path(name).stem},{Path(name).stem},{name},test\n" for name in REAL)
        self.clips.write_text(f"clip_id,subject_id,video,part\n{rows}", encoding="utf-8")

    def _plan(self, form: str) -> dict[str, object]:
        """A plan of `transfer`, its parts as arguments of the command line or as files and mappings."""
        init = {"model": "test_resnet", "input_size_px": 32}
        cnn = {**init, "weights": str(self.old / "fit_heat_cnn" / "run" / "extractor.safetensors")}
        heat, electrical = self.old / "synth_heat" / "data", self.old / "synth_electrical" / "data"
        arguments = form == "arguments"
        data = self._data_arguments if arguments else self._data_mapping
        extractor = self._extractor_arguments if arguments else self._extractor_mapping
        linear = "configs/head/linear_probe.yaml"
        # Arguments of a head stand on top of the first data set's, and so of its trainer's.
        trainer = {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False, "enable_model_summary": False}
        return {
            "fps": 3,
            "data": {
                "heat": data("biovid", heat, "split.test_share", 0.4),
                "electrical": {
                    **data("ai4pain", electrical, "labels", "binary"),
                    "truth": str(electrical.parent / "data_truth" / "labels.csv"),
                },
            },
            "extractors": {
                "cnn": {**extractor(cnn), "trained_on": "heat"},
                "untrained": {**extractor(init), "trained_on": "nothing"},
            },
            "heads": {
                "linear": [f"--config={linear}", ONCE]
                if arguments
                else {"config": [linear], "set": {"trainer": trainer}}
            },
            "sources": ["heat"],
            "targets": ["heat", "electrical"],
            "k": [1],
            "draws": 1,
            "epochs": 1,
        }

    def _data_arguments(self, name: str, root: Path, option: str, value: object) -> dict[str, object]:
        configs = [f"--config=configs/data/{name}.yaml", f"--config={self.tiny}"]
        return {"options": [*configs, f"--data.root={root}", f"--data.options.{option}={value}"]}

    def _data_mapping(self, name: str, root: Path, option: str, value: object) -> dict[str, object]:
        for key in reversed(option.split(".")):
            value = {key: value}
        keys = {"data": {"init_args": {"root": str(root), "options": value}}}
        return {"config": [f"configs/data/{name}.yaml", str(self.tiny)], "set": keys}

    def _extractor_arguments(self, init_args: dict[str, object]) -> dict[str, object]:
        return {"options": [f"--model.extractor={json.dumps(_network(init_args))}"]}

    def _extractor_mapping(self, init_args: dict[str, object]) -> dict[str, object]:
        return {"set": {"model": {"extractor": _network(init_args)}}}

    def write_units(self) -> None:
        """OpenFace's tables of the electrical data, written from the truth; every ninth frame is not found."""
        truth = self.old / "synth_electrical" / "data_truth"
        intensities = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
        presences = (*intensities[:-1], 28, 45)
        header = ["frame", "timestamp", "confidence", "success"]
        header += [f"AU{unit:02d}_r" for unit in intensities] + [f"AU{unit:02d}_c" for unit in presences]
        for path in truth.rglob("*.safetensors"):
            with safe_open(path, "numpy") as file:
                au = file.get_tensor("au")
            table = self.units / path.relative_to(truth).with_suffix(".csv")
            table.parent.mkdir(parents=True, exist_ok=True)
            with table.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                for row, levels in enumerate(np.clip(au, 0, 5)):
                    known = [f"{levels[column % len(levels)]:.2f}" for column in range(len(intensities))]
                    shown = [str(int(levels[column % len(levels)] > 2)) for column in range(len(presences))]
                    found = int(row % 9 != 4)
                    writer.writerow([row + 1, f"{row / 3:.3f}", 0.98, found, *known, *shown])


def _network(init_args: dict[str, object]) -> dict[str, object]:
    return {"class_path": "painseq.extractors.TimmBackbone", "init_args": init_args}


def steps_of(here: Path, inputs: Inputs, flags: Dialect) -> dict[str, list[str]]:
    """Step -> the arguments of `painseq`, in the order in which they run.

    Args:
        here: folder of the side's outputs; a step writes below `here / step`.
        flags: the side's.
    """
    steps = _data(here, inputs) | _fits(here, inputs, flags) | _scores(here, inputs, flags)
    steps |= _studies(here, inputs, flags) | _videos(here, inputs, flags)
    if inputs.assets is not None:
        steps |= _real(here, inputs, inputs.assets)
    return {name: [str(arg) for arg in args] for name, args in steps.items()}


def closure(wanted: Sequence[str], steps: dict[str, list[str]], old: Path) -> list[str]:
    """The steps wanted and all that they read, in order; `steps` are those of the old side."""
    found: set[str] = set()
    left = list(wanted)
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        read = set(re.findall(rf"{re.escape(str(old))}/(\w+)", " ".join(steps[name])))
        left += [*read & steps.keys(), *NEEDED_TOO.get(name, ())]
        left += [COPIED[name]] if name in COPIED else []
    return [name for name in steps if name in found]


Steps = dict[str, list[object]]


def _heat(inputs: Inputs) -> list[object]:
    root = inputs.old / "synth_heat" / "data"
    return ["--config", "configs/data/biovid.yaml", "--config", inputs.tiny, "--data.root", root]


def _electrical(inputs: Inputs) -> list[object]:
    root = inputs.old / "synth_electrical" / "data"
    return ["--config", "configs/data/ai4pain.yaml", "--config", inputs.tiny, "--data.root", root]


def _clinical(inputs: Inputs) -> list[object]:
    root = inputs.old / "synth_clinical" / "data"
    windows = ["--data.fps", "5", "--data.window_s", "1", "--data.stride_s", "1", "--data.options.labels", "pspi"]
    return ["--config", "configs/data/unbc.yaml", "--config", inputs.tiny, "--data.root", root, *windows]


def _head(name: str, epochs: int = 2) -> list[object]:
    return ["--config", f"configs/head/{name}.yaml", f"--trainer.max_epochs={epochs}"]


def _store(path: Path) -> list[object]:
    return ["--data.options.store", path]


def _data(here: Path, inputs: Inputs) -> Steps:
    heat, electrical, clinical, old = _heat(inputs), _electrical(inputs), _clinical(inputs), inputs.old
    size = ["--size-px", "64", "--workers", "1"]
    exact = ["--precision", "fp32"]
    vgg16 = "{class_path: painseq.extractors.VGG16, init_args: {weights: null, fc: true, input_size_px: 32}}"
    return {
        "synth_heat": [
            "synth", "biovid", here / "synth_heat" / "data", *size, "--subjects", "6", "--trials", "2",
            "--levels", "BL1", "PA4", "--fps", "4",
        ],
        "synth_electrical": [
            "synth", "ai4pain", here / "synth_electrical" / "data", *size, "--subjects", "5", "1", "2",
            "--trials", "1", "--baseline-s", "25", "--fps", "3",
        ],
        "synth_clinical": [
            "synth", "unbc", here / "synth_clinical" / "data", *size, "--subjects", "6", "--sequences", "2",
            "--frames", "10", "--fps", "5",
        ],
        "check_data": ["data", "check", *electrical, "--json", here / "check_data" / "check.json"],
        "split": ["split", *heat, "--out", here / "split" / "split.json"],
        "faces": ["faces", *heat, "--out", here / "faces" / "tracks"],
        "store_heat": ["extract", *heat, *exact, "--out", here / "store_heat" / "store"],
        "store_electrical": [
            "extract", *electrical, *exact, "--dtype", "float32", "--out", here / "store_electrical" / "store",
            "--export", here / "store_electrical" / "npz", "--json",
        ],
        "store_clinical": ["extract", *clinical, *exact, "--out", here / "store_clinical" / "store"],
        "store_crops": ["extract", *heat, "--model.extractor", PIXELS, "--out", here / "store_crops" / "store"],
        "store_part": [
            "extract", *heat, *exact, "--model.extractor", vgg16, "--parts", "test",
            "--out", here / "store_part" / "store",
        ],
        "store_resumed": [
            "extract", *heat, *exact, "--model.extractor", vgg16, "--parts", "test", "validation",
            "--out", here / "store_resumed" / "store",
        ],
        "store_info": ["store", "info", old / "store_electrical" / "store", "--json"],
    }  # fmt: skip


def _fits(here: Path, inputs: Inputs, flags: Dialect) -> Steps:
    heat, electrical, old = _heat(inputs), _electrical(inputs), inputs.old
    on_electrical = [*electrical, *_store(here / "store_electrical" / "store")]
    on_heat = [*heat, *_store(here / "store_heat" / "store")]
    on_clinical = [*_clinical(inputs), *_store(here / "store_clinical" / "store")]
    crops = [*heat, *_store(here / "store_crops" / "store"), "--data.options.view", "pixels"]
    trainable = (
        "{class_path: painseq.extractors.TimmBackbone, init_args: "
        "{model: test_resnet, weights: null, input_size_px: 32, trainable: [all]}}"
    )
    units = ["--data.options.streams=[cnn, action_units]", "--data.options.action_units", inputs.units]
    plain = ["--model.class_weights", "none"]
    fits: Steps = {
        "fit_ann": [*on_electrical, *_head("frame_ann")],
        "fit_lstm": [*on_electrical, *_head("lstm", 3)],
        "fit_corn": [*on_electrical, *_head("lstm"), "--model.loss", "corn", *plain],
        "fit_two_stream": [*on_heat, *_head("two_stream")],
        "fit_units": [*on_electrical, *_head("attention_mil"), *units],
        "fit_mse": [*on_clinical, *_head("lstm"), "--model.loss", "mse", *plain],
        "fit_baseline": [*on_heat, *_head("lstm"), "--data.options.normalise", "baseline"],
        "fit_heat_cnn": [
            *crops, *_head("linear_frames"), "--model.extractor", trainable, "--data.options.balance", "true",
            "--data.options.frames={from_s: 2.5, to_s: 5.5}", "--data.options.split.test_share", "0.4",
            f"--data.options.augment={{class_path: {flags.augment}}}",
        ],
        "fit_vivit": [
            *crops, "--model.extractor", PIXELS, "--model.head", VIVIT, "--data.options.batch_size", "8",
            "--model.optimizer={class_path: torch.optim.AdamW, init_args: {lr: 5.0e-4}}",
        ],
        "fit_refit": [*on_electrical, *_head("linear_probe"), "--refit", "2"],
        "fit_shuffled": [*on_electrical, *_head("linear_probe"), "--shuffle-labels"],
        "fit_started": [*on_electrical, *_head("lstm", 1), "--model.start_from", _best(here, "fit_lstm")],
        "fit_old_store": [*electrical, *_store(old / "store_electrical" / "store"), *_head("temporal_conv_net")],
    }  # fmt: skip
    return {name: ["fit", *args, "--out", here / name / "run"] for name, args in fits.items()}


def _best(here: Path, fit: str) -> Path:
    return here / fit / "run" / "best.ckpt"


def _scores(here: Path, inputs: Inputs, flags: Dialect) -> Steps:
    heat, old = _heat(inputs), inputs.old
    truth = old / "synth_electrical" / "data_truth" / "labels.csv"
    store = here / "store_electrical" / "store"
    on_electrical = [*_electrical(inputs), *_store(store), "--truth", truth]
    on_heat = [*heat, *_store(here / "store_heat" / "store")]
    units = ["--data.options.streams=[cnn, action_units]", "--data.options.action_units", inputs.units]
    crops = [*heat, *_store(here / "store_crops" / "store"), "--data.options.view", "pixels"]
    scored: Steps = {
        "evaluate_ann": [*on_electrical, "--checkpoint", _best(here, "fit_ann")],
        "evaluate_lstm": [*on_electrical, "--checkpoint", _best(here, "fit_lstm"), *flags.calibrate],
        "evaluate_corn": [*on_electrical, "--checkpoint", _best(here, "fit_corn")],
        "evaluate_averaged": [
            *on_electrical, *flags.averaged(_best(here, "fit_lstm"), _best(here, "fit_started")),
            "--prior", "no_pain=0.2", "low_pain=0.4", "high_pain=0.4",
        ],
        "evaluate_units": [*on_electrical, *units, "--checkpoint", _best(here, "fit_units")],
        "evaluate_two_stream": [
            *on_heat, "--data.options.streams=[cnn, landmarks]", "--checkpoint", _best(here, "fit_two_stream"),
        ],
        "evaluate_mse": [
            *_clinical(inputs), *_store(here / "store_clinical" / "store"), "--checkpoint", _best(here, "fit_mse"),
        ],
        "evaluate_baseline": [
            *on_heat, "--data.options.normalise", "baseline", "--checkpoint", _best(here, "fit_baseline"),
        ],
        "evaluate_heat_cnn": [
            *crops, "--data.options.split.test_share", "0.4", "--checkpoint", _best(here, "fit_heat_cnn"),
        ],
        "evaluate_vivit": [*crops, "--checkpoint", _best(here, "fit_vivit")],
    }  # fmt: skip
    steps: Steps = {name: ["evaluate", *args, "--out", here / name / "test"] for name, args in scored.items()}
    predictions = {name: here / f"evaluate_{name}" / "test" / "predictions.csv" for name in ("lstm", "ann", "mse")}
    return steps | {
        "evaluate_file": [
            "evaluate", "--predictions", predictions["lstm"], "--out", here / "evaluate_file" / "test",
        ],
        "compare": [
            "compare", f"lstm={predictions['lstm']}", f"ann={predictions['ann']}", "--out", here / "compare" / "out",
        ],
        "submit": [
            "submit", "--predictions", predictions["lstm"], "--fill", "no_pain", "--probabilities",
            "--out", here / "submit" / "submission.csv",
        ],
    }  # fmt: skip


def _studies(here: Path, inputs: Inputs, flags: Dialect) -> Steps:
    heat, electrical = _heat(inputs), _electrical(inputs)
    on_heat = [*heat, *_store(here / "store_heat" / "store")]
    on_electrical = [*electrical, *_store(here / "store_electrical" / "store")]
    folds = ["--data.options.split.protocol", "subject_kfold", "--data.options.split.folds", "2"]
    truth = inputs.old / "synth_electrical" / "data_truth" / "labels.csv"
    quick = ["--", "--config", inputs.tiny, ONCE]
    return {
        "crossval": [
            "crossval", *on_heat, *_head("frame_ann"), *folds, "--jobs", "2", "--out", here / "crossval" / "run",
        ],
        "crossval_mse": [
            "crossval", *_clinical(inputs), *_store(here / "store_clinical" / "store"), *_head("linear_frames", 1),
            *folds, "--model.loss", "mse", "--model.class_weights", "none", "--jobs", "1",
            "--out", here / "crossval_mse" / "run",
        ],
        "crossval_nested": [
            "crossval", *on_electrical, *folds, "--candidates", "configs/head/lstm.yaml",
            "configs/head/linear_probe.yaml", "--inner-folds", "2", "--trainer.max_epochs", "2", "--jobs", "1",
            "--out", here / "crossval_nested" / "run",
        ],
        "transfer": ["transfer", inputs.plans[flags.plan], "--out", here / "transfer" / "run"],
        "audit": [
            "audit", "model", *on_heat, *_head("frame_ann", 1), "--folds", "2", "--frames-per-clip", "2",
            "--out", here / "audit" / "run",
        ],
        "audit_check": [
            "audit", "check", here / "split" / "split.json", "--json", here / "audit_check" / "found.json",
        ],
        "reproduce": [
            "reproduce", "prajod2024_ann", "--root", inputs.old / "synth_electrical" / "data", "--truth", truth,
            "--out", here / "reproduce" / "run", *quick,
        ],
        "reproduce_phases": [
            "reproduce", "elghaish2025", "--root", inputs.old / "synth_heat" / "data",
            "--out", here / "reproduce_phases" / "run", *quick,
            "--data.options.labels", "binary", "--data.options.split.folds", "2",
            "--model.head.init_args.landmarks", "68",
        ],
    }  # fmt: skip


def _videos(here: Path, inputs: Inputs, flags: Dialect) -> Steps:
    electrical = inputs.old / "synth_electrical" / "data"
    heat = inputs.old / "synth_heat" / "data"
    video = electrical / "Test" / "S07" / "S07_1.mp4"
    calm, pain = (_clip_of_heat(heat, name) for name in ("BL1", "PA4"))
    on_electrical = _electrical(inputs)
    few = ["--clips", "2", "--part", "test"]
    lstm, ann, mse = (_best(here, f"fit_{name}") for name in ("lstm", "ann", "mse"))
    both = [lstm, _best(here, "fit_started")]
    explained = here / "explain" / "out"
    return {
        "predict": ["predict", video, "--json", "--checkpoint", lstm],
        "predict_corn": ["predict", video, "--json", "--checkpoint", _best(here, "fit_corn")],
        "predict_averaged": ["predict", video, "--json", *flags.averaged(*both)],
        "predict_mse": ["predict", video, "--json", "--checkpoint", mse],
        "predict_two_stream": ["predict", video, "--json", "--checkpoint", _best(here, "fit_two_stream")],
        "predict_baseline": [
            "predict", pain, "--json", "--baseline", calm, "--checkpoint", _best(here, "fit_baseline"),
        ],
        "predict_units": [
            "predict", video, "--json", "--action-units", inputs.units / "Test" / "S07" / "S07_1.csv",
            "--checkpoint", _best(here, "fit_units"),
        ],
        "predict_vivit": ["predict", pain, "--json", "--checkpoint", _best(here, "fit_vivit")],
        "explain": ["explain", video, "--checkpoint", lstm, "--most-steps", "32", "--out", explained],
        "explain_ann": [
            "explain", video, "--checkpoint", ann, "--method", "saliency", "--time-method", "votes",
            "--class-name", "high_pain", "--out", here / "explain_ann" / "out",
        ],
        "explain_vivit": [
            "explain", pain, "--checkpoint", _best(here, "fit_vivit"), "--out", here / "explain_vivit" / "out",
        ],
        "explain_mse": [
            "explain", video, "--checkpoint", mse, "--time-method", "gradient_x_input",
            "--out", here / "explain_mse" / "out",
        ],
        "explain_regions": [
            "explain", "regions", *on_electrical, "--checkpoint", lstm, *few,
            "--out", here / "explain_regions" / "out",
        ],
        "explain_score": [
            *flags.score, *on_electrical, "--checkpoint", ann, "--clips", "1",
            "--part", "test", "--methods", "saliency", "votes", "--most-steps", "8",
            "--out", here / "explain_score" / "out",
        ],
    }  # fmt: skip


def _clip_of_heat(root: Path, level: str) -> Path:
    """A clip of the last subject; a name that is not there before `synth` ran."""
    return max(root.rglob(f"*-{level}-*.mp4"), default=root / f"none-{level}-.mp4")


def _real(here: Path, inputs: Inputs, assets: Path) -> Steps:
    yunet = assets / "weights" / "detectors" / "face_detection_yunet_2023mar.onnx"
    weights = assets / "weights" / "backbone" / "vgg16_imagenet_features_tvnorm_fp16.safetensors"
    locator = {"class_path": "painseq.faces.YuNet", "init_args": {"model": str(yunet)}}
    data = [
        "--config", "configs/data/ai4pain.yaml", "--config", "configs/extractor/vgg16.yaml",
        "--model.extractor.init_args.weights", weights, "--data.options.fps", "1",
        "--data.options.face.init_args.locator", json.dumps(locator),
        "--data.root", assets / "videos", "--data.manifest", inputs.clips,
    ]  # fmt: skip
    by_yunet = ["--locator", "yunet", "--yunet-model", yunet]
    video = assets / "videos" / "single_face.mp4"
    return {
        "real_faces": ["faces", *data, "--out", here / "real_faces" / "tracks"],
        "real_store": ["extract", *data, "--precision", "fp32", "--out", here / "real_store" / "store"],
        "real_predict": [
            "predict", video, assets / "videos" / "face_noface.mov", "--json", *by_yunet,
            "--checkpoint", _best(here, "fit_lstm"),
        ],
        "real_explain": [
            "explain", video, *by_yunet, "--checkpoint", _best(here, "fit_heat_cnn"),
            "--out", here / "real_explain" / "out",
        ],
    }  # fmt: skip
