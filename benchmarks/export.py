"""Exported models: what int8 changes, how fast the extractors run, and what the runtime takes without torch.

    python benchmarks/export.py --assets ASSETS [--write]
    python benchmarks/export.py --assets ASSETS --quick      # small: whether it runs

For VGG16 with the dense layer of 1024 units (ImageNet weights, the dense layer random) and resnet18 (random weights) on
crops of 224 x 224 a head is fitted on generated people and exported. In this order:

- agreement: features of the exported network and of torch on a real video, and labels and probabilities in fp32 and in
  int8 for validation people, as `painseq export --int8` measures them;
- speed: frames per CPU second on one thread, the variants taking turns; OpenVINO if it is installed;
- the runtime: size of its installation from a built wheel in a new environment, peak memory (VmHWM) and time to the
  first probability of a new process of it, on a real video; sizes of the files.
"""

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from heads import verdict
from results import RESULTS, ROOT, machine, write_between

from painseq.cli.experiment import ExperimentCLI
from painseq.cli.extract import main as extract
from painseq.cli.fit import fit
from painseq.export import Int8, export
from painseq.export.int8 import calibration_of, crops_of_model
from painseq.export.quantising import convert
from painseq.faces import YuNet
from painseq.features.network import Network, has_bf16
from painseq.model import load
from painseq.runtime.folder import EXTRACTOR, Int8Record, read_folder
from painseq.runtime.graphs import Graph, OnnxGraph, OpenVinoGraph
from painseq.synthetic import BioVidPlan, write_biovid

VGG16_WEIGHTS = "weights/backbone/vgg16_imagenet_features_tvnorm_fp16.safetensors"
YUNET_FILE = "weights/detectors/face_detection_yunet_2023mar.onnx"
VIDEO = "videos/single_face.mp4"
GOALS = {"over fp32": 3.5, "over bf16": 1.8, "parity": 1e-4, "installed": 450, "peak": 200, "first": 3.0}
BATCHES = (1, 8)
FIRST_FRAME_S = 0.01


@dataclass(frozen=True)
class Exported:
    """A fitted model, its exported folders, and what int8 changed."""

    checkpoint: Path
    fp32: Path
    int8: Path
    change: Int8Record
    calibration: np.ndarray


@dataclass(frozen=True)
class Settings:
    assets: Path
    work: Path
    quick: bool

    @property
    def size_px(self) -> int:
        return 32 if self.quick else 224

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 5

    @property
    def networks(self) -> Mapping[str, dict[str, object]]:
        timm = "painseq.extractors.TimmBackbone"
        size = {"input_size_px": self.size_px}
        if self.quick:
            return {"test_resnet": {"class_path": timm, "init_args": {"model": "test_resnet", **size}}}
        vgg16 = {"weights": str(self.assets / VGG16_WEIGHTS), "fc": True, "new": ["fc"], **size}
        return {
            "VGG16-GAP-FC1024": {"class_path": "painseq.extractors.VGG16", "init_args": vgg16},
            "resnet18": {"class_path": timm, "init_args": {"model": "resnet18", **size}},
        }


def exported(name: str, settings: Settings) -> Exported:
    """Fit an LSTM on the network's features of generated people, and export it in fp32 and in int8."""
    work = settings.work / name
    work.mkdir()
    face = {"locator": {"class_path": "painseq.faces.Sidecar"}, "size_px": settings.size_px}
    options = {
        "fps": 1,
        "labels": "three",
        "face": {"class_path": "painseq.faces.FaceCrops", "init_args": face},
        "split": {"protocol": "subject_holdout", "validation_share": 0.5, "test_share": 0.1},
    }
    config = {
        "model": {"extractor": settings.networks[name]},
        "data": {"class_path": "BioVid", "init_args": {"root": str(settings.work / "heat"), "options": options}},
        "trainer": {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"},
    }
    (work / "network.yaml").write_text(yaml.safe_dump(config))
    own = ["--config", str(work / "network.yaml")]
    extract([*own, "--out", str(work / "features"), "--precision", "fp32"])
    pixels = f'{{"class_path": "painseq.extractors.Pixels", "init_args": {{"input_size_px": {settings.size_px}}}}}'
    extract([*own, "--model.extractor", pixels, "--out", str(work / "crops")])
    head = ["--config", "configs/head/lstm.yaml", "--trainer.max_epochs", "3" if settings.quick else "40"]
    run = fit([*own, *head, "--data.options.store", str(work / "features"), "--out", str(work / "run")])
    store = ["--data.options.view", "pixels", "--data.options.store", str(work / "crops")]
    data = ExperimentCLI("export", [*own, *store]).data()
    locator = YuNet(str(settings.assets / YUNET_FILE))
    checkpoint, int8 = run / "best.ckpt", Int8(data, floor=0)
    export(checkpoint, work / "fp32", locator)
    record = export(checkpoint, work / "int8", locator, extractor=int8)
    assert record.int8 is not None
    crops = calibration_of(crops_of_model(load(checkpoint), data), int8).crops
    return Exported(checkpoint, work / "fp32", work / "int8", record.int8, crops)


def real_crops(model: Exported, settings: Settings) -> np.ndarray:
    """Eight crops of a real video."""
    clip = load(model.checkpoint).crops(settings.assets / VIDEO, 0, 1, YuNet(str(settings.assets / YUNET_FILE)))
    crops: np.ndarray = clip.features[clip.present][:: max(1, int(clip.present.sum()) // 8)][:8].numpy()
    return crops


def variants_of(model: Exported, work: Path) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Functions from crops to features, each on one thread."""
    torch.set_num_threads(1)
    extractor = load(model.checkpoint).extractor
    assert extractor is not None

    def of_torch(precision: str) -> Callable[[np.ndarray], np.ndarray]:
        network = Network(extractor, "cpu", precision)  # type: ignore[arg-type]
        return lambda crops: network(torch.from_numpy(crops)).float().numpy()

    def of_graph(graph: Graph) -> Callable[[np.ndarray], np.ndarray]:
        return lambda crops: graph({"crops": crops})["features"]

    found = {"torch fp32": of_torch("fp32")}
    if has_bf16("cpu"):
        found["torch bf16"] = of_torch("bf16")
    for name, folder in (("fp32", model.fp32), ("int8", model.int8)):
        found[f"onnxruntime {name}"] = of_graph(OnnxGraph(folder / EXTRACTOR, threads=1))
    if importlib.util.find_spec("openvino") is None:
        return found
    for name in ("fp32", "bf16", *(["int8"] if importlib.util.find_spec("nncf") else [])):
        xml = work / f"openvino_{name}.xml"
        convert(model.fp32 / EXTRACTOR, xml, model.calibration if name == "int8" else None)
        found[f"OpenVINO {name}"] = of_graph(OpenVinoGraph(xml, name, threads=1))
    return found


def cpu_seconds(
    variants: Mapping[str, Callable[[np.ndarray], np.ndarray]], crops: np.ndarray, rounds: int
) -> dict[str, float]:
    """CPU seconds of each variant in its fastest round; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run(crops)
    for _ in range(rounds):
        for name, run in variants.items():
            start = time.process_time()
            run(crops)
            seconds[name].append(time.process_time() - start)
    return {name: min(each) for name, each in seconds.items()}


def network_part(name: str, model: Exported, settings: Settings) -> str:
    """Agreement and speed of one network."""
    crops = real_crops(model, settings)
    variants = variants_of(model, settings.work / name)
    exact = variants["torch fp32"](crops)
    apart = {title: float(np.abs(run(crops) - exact).max() / np.abs(exact).max()) for title, run in variants.items()}
    lines = [f"### {name}", "", *agreement_lines(model.change), ""]
    met = "met" if apart["onnxruntime fp32"] <= GOALS["parity"] else "MISSED"
    lines += [f"- {name}, fp32 apart from torch: {apart['onnxruntime fp32']:.1e}; at most {GOALS['parity']}: {met}", ""]
    rates = {}
    for batch in BATCHES:
        part = np.resize(crops, (batch, *crops.shape[1:]))
        seconds = cpu_seconds(variants, part, settings.rounds)
        rates[batch] = {title: batch / each for title, each in seconds.items()}
        print(name, batch, {title: round(rate, 2) for title, rate in rates[batch].items()}, flush=True)
    lines += ["| engine | features apart | " + " | ".join(f"frames per CPU s, batch {n} | x" for n in BATCHES) + " |"]
    lines += ["|---|---|" + "---|---|" * len(BATCHES)]
    for title in variants:
        cells = [f"{rates[n][title]:.1f} | {rates[n][title] / rates[n]['torch fp32']:.2f}" for n in BATCHES]
        lines.append(f"| {title} | {apart[title]:.1e} | {' | '.join(cells)} |")
    lines.append("")
    for below in ("fp32", "bf16"):
        if f"torch {below}" in variants:
            ratio = rates[1]["onnxruntime int8"] / rates[1][f"torch {below}"]
            lines.append(verdict(f"{name}, int8 over torch {below}", ratio, GOALS[f"over {below}"], at_least=True))
    return "\n".join(lines)


def agreement_lines(change: Int8Record) -> list[str]:
    """What int8 changed for validation people."""
    accuracy = change.balanced_accuracy
    lines = [
        f"Int8, calibrated on {change.frames} crops of {len(change.calibrated_on)} people, for {change.clips} clips of "
        f"{len(change.measured_on)} other generated people: label agreement {change.agreement:.3f}, probabilities "
        f"apart by {change.mean_change:.4f} on average and {change.largest_change:.3f} at most."
    ]
    if change.changed_lead is not None:
        lines.append(f"Labels that changed led the next class by at most {change.changed_lead:.4f} in fp32.")
    if accuracy is not None and accuracy.change is not None:
        interval = "" if accuracy.low is None else f" (95 % interval {accuracy.low:+.3f} to {accuracy.high:+.3f})"
        lines.append(f"Balanced accuracy {accuracy.fp32:.3f}, changed by {accuracy.change:+.3f}{interval}.")
    return lines


PREDICT = """
import sys
from painseq.runtime import load
found = load(sys.argv[1]).predict(sys.argv[2], end_s=float(sys.argv[3]) if sys.argv[3] else None)
assert not {"torch", "pytorch_lightning", "sklearn", "scipy"} & set(sys.modules)
print(found.label, found.probabilities, flush=True)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""VmHWM and not getrusage, which counts the memory of the parent before the program was started."""


def predicted(python: Path, folder: Path, video: Path, end_s: float | None) -> tuple[float, float]:
    """Predict in a new process; returns seconds until the answer is printed, and the peak memory in MB."""
    started = time.perf_counter()
    command = [str(python), "-c", PREDICT, str(folder), str(video), "" if end_s is None else str(end_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stdout is not None
        answer = process.stdout.readline()
        seconds = time.perf_counter() - started
        peak = process.stdout.readline()
    if process.returncode or not peak:
        raise SystemExit(f"{folder} cannot be run by {python}.")
    print(f"  {answer.strip()} after {seconds:.2f} s", flush=True)
    return seconds, int(peak) / 1000


def installed(work: Path) -> tuple[Path, float, float]:
    """Install the built wheel, without extras, into a new environment.

    Returns:
        Its Python, the MB installed, and those of them that are not files which pip compiled.
    """
    source, wheels, place = work / "source", work / "wheels", work / "venv"
    for name in ("painseq", "data_modules", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "-w", str(wheels), str(source)], check=True)
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    before = megabytes(place / "lib"), megabytes(place / "lib", compiled=False)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    after = megabytes(place / "lib"), megabytes(place / "lib", compiled=False)
    return python, after[0] - before[0], after[1] - before[1]


def megabytes(folder: Path, compiled: bool = True) -> float:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files if compiled or path.suffix != ".pyc") / 1e6


def runtime_part(models: Mapping[str, Exported], settings: Settings, install: bool) -> str:
    """Installation, memory, first answer and files."""
    video = settings.assets / VIDEO
    lines = ["### Runtime without torch", ""]
    python = Path(sys.executable)
    if install:
        python, size, bare = installed(settings.work)
        lines.append(verdict("MB installed, from the built wheel", size, GOALS["installed"], at_least=False))
        lines.append(f"- of them without the files that pip compiles (`pip install --no-compile`): {bare:.0f}")
    rows = []
    for name, model in models.items():
        for precision, folder in (("fp32", model.fp32), ("int8", model.int8)):
            _, peak = predicted(python, folder, video, None)
            first = min(predicted(python, folder, video, FIRST_FRAME_S)[0] for _ in range(settings.rounds))
            sizes = {file: record.bytes / 1e6 for file, record in read_folder(folder).files.items()}
            rest = sum(sizes.values()) - sizes[EXTRACTOR]
            rows.append(f"| {name}, {precision} | {sizes[EXTRACTOR]:.1f} | {rest:.1f} | {peak:.0f} | {first:.2f} |")
            if precision == "int8":
                lines.append(verdict(f"MB at most in memory, {name} in int8", peak, GOALS["peak"], at_least=False))
                lines.append(verdict(f"seconds to the first probability, {name} in int8", first, GOALS["first"], False))
    head = "| model | extractor, MB | other files, MB | peak memory, MB | first probability, s |"
    return "\n".join([*lines, "", head, "|---|---|---|---|---|", *rows])


def main() -> None:
    """Measure, print and, if asked to, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True, help="folder of real videos and weights")
    parser.add_argument("--quick", action="store_true", help="a small network and few people")
    parser.add_argument("--no-install", action="store_true", help="run the runtime here, not in a new environment")
    parser.add_argument("--work", type=Path, help="a new folder, in which the exported models stay; default: temporary")
    parser.add_argument("--write", action="store_true", help="record the tables in benchmarks/RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place) if args.work is None else args.work.resolve()
        work.mkdir(parents=True, exist_ok=args.work is None)
        settings = Settings(args.assets.resolve(), work, args.quick)
        plan = BioVidPlan(6 if args.quick else 20, 1 if args.quick else 2, ("BL1", "PA1", "PA4"), fps=1, size_px=128)
        write_biovid(settings.work / "heat", plan, seed=0)
        models = {name: exported(name, settings) for name in settings.networks}
        parts = [network_part(name, model, settings) for name, model in models.items()]
        parts.append(runtime_part(models, settings, not args.no_install))
    text = "\n\n".join([machine(), *parts])
    print(text)
    if args.write:
        write_between(RESULTS, "export", text)


if __name__ == "__main__":
    main()
