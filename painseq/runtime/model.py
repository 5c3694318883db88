"""`ExportedModel`: a model of an exported folder, which predicts videos without torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from painseq.model.prediction import Answer
from painseq.model.predictor import Predictor, State, no_steps_error, no_videos_error, too_long_error
from painseq.runtime.folder import HEAD, HEAD_STEP, ExportedRecord, read_folder
from painseq.runtime.graphs import Graph, NoDevice, OnnxGraph, OpenVinoGraph, has_gpu_build

log = logging.getLogger("painseq")
NEXT = "next_"
"""Before the name of a state, among the outputs of `HEAD_STEP`."""


class ExportedModel(Predictor):
    """A model of an exported folder; `load` makes one.

    Args:
        folder: the folder, whose files are checked already.
        exported: the content of its `model.json`.
        device: "cpu", or a GPU of onnxruntime: "cuda", "cuda:1", ...
        threads: threads of a network; None: as many as the machine has cores.

    Raises:
        PainseqError: a graph cannot be loaded, or is not the one that `model.json` describes.
    """

    def __init__(self, folder: Path, exported: ExportedRecord, device: str = "cpu", threads: int | None = None) -> None:
        super().__init__(exported.record, exported.face_crops(folder))
        self.exported = exported
        self.device = device
        self.prior = exported.prior
        state = exported.step.state if exported.step is not None else {}
        answers = _answers(exported)
        self._extractor = _extractor(folder, exported, device, threads)
        self._head: Graph = OnnxGraph(folder / HEAD, device, threads)
        self._head.check(folder / HEAD, ("x", "mask"), answers)
        self._step: Graph | None = None
        if exported.step is not None:
            self._step = OnnxGraph(folder / HEAD_STEP, device, threads)
            one = [name for name in answers if name in ("label", "probabilities", "value")]
            self._step.check(folder / HEAD_STEP, ("x", *state), (*one, *(f"{NEXT}{name}" for name in state)))

    @property
    def level(self) -> Literal["frame", "video"]:
        """See `Predictor.level`."""
        return self.exported.head.level

    @property
    def engines(self) -> Mapping[str, str]:
        """The device, what runs the networks, and the extractor's precision."""
        engine, extractor = self._head.on, self.exported.extractor
        if extractor is not None:
            engine = f"{extractor.engine} {extractor.precision}"
        return {"device": self.device, "engine": engine}

    def features(self, crops: NDArray[np.uint8]) -> NDArray[Any]:
        """See `Predictor.features`."""
        if self._extractor is None:
            if self.face is None or not self.takes_crops:
                raise no_videos_error()
            return crops
        if self.device != "cpu":
            return self._extractor({"crops": crops})["features"]
        # On a CPU, frame by frame is as fast as several, and takes a fraction of the memory.
        frames = [self._extractor({"crops": crop[None]})["features"] for crop in crops]
        return np.concatenate(frames)

    def answer(self, rows: NDArray[Any], mask: NDArray[np.bool_]) -> Answer:
        """See `Predictor.answer`.

        Raises:
            PainseqError: the clips are longer than the head takes.
        """
        longest = self.exported.head.max_frames
        if longest is not None and mask.shape[1] > longest:
            raise too_long_error(longest, mask.shape[1])
        return _answer(self._head({"x": rows.astype(self._head.takes("x"), copy=False), "mask": mask}))

    @property
    def max_frames(self) -> int | None:
        """See `Predictor.max_frames`."""
        return self.exported.head.max_frames

    @property
    def steps(self) -> bool:
        """See `Predictor.steps`."""
        return self._step is not None

    def first_state(self, batch: int = 1) -> State:
        """See `Predictor.first_state`."""
        if self.exported.step is None:
            raise no_steps_error(self.record)
        return {name: np.zeros((batch, *shape), np.float32) for name, shape in self.exported.step.state.items()}

    def step(self, rows: NDArray[np.float32], state: State) -> tuple[Answer, State]:
        """See `Predictor.step`."""
        if self._step is None:
            raise no_steps_error(self.record)
        found = self._step({"x": rows.astype(np.float32, copy=False), **state})
        return _answer(found), {name: found[f"{NEXT}{name}"] for name in state}


def load(folder: str | Path, device: str = "cpu", threads: int | None = None) -> ExportedModel:
    """Load an exported folder; every file is checked by its sha256 before it is used.

    Args:
        folder: as `painseq export` wrote it.
        device: "cpu", or a GPU where onnxruntime has it: "cuda", "cuda:1", ...; "auto": a GPU if there is one.
        threads: threads of a network; None: as many as the machine has cores.

    Raises:
        PainseqError: the folder is unfinished, was changed, or is of another version; onnxruntime is missing, or has no
            such device.

    Example:
        >>> model = painseq.runtime.load("exported/lstm")
        >>> model.predict("video.mp4").label
        'no_pain'
    """
    path = Path(folder)
    exported = read_folder(path)
    if device != "auto":
        return ExportedModel(path, exported, device, threads)
    if has_gpu_build():
        try:
            return ExportedModel(path, exported, "cuda", threads)
        except NoDevice as error:
            log.info("The CPU is used: %s", error)
    return ExportedModel(path, exported, "cpu", threads)


def _extractor(folder: Path, exported: ExportedRecord, device: str, threads: int | None) -> Graph | None:
    if exported.extractor is None or exported.extractor_file is None:
        return None
    path = folder / exported.extractor_file
    graph: Graph
    if exported.extractor.engine == "openvino":
        if device != "cpu":
            raise NoDevice(
                f"device is {device!r}, but the extractor of {folder} is run by OpenVINO, on the CPU only. Set "
                "device to cpu (command line: --device cpu)."
            )
        graph = OpenVinoGraph(path, exported.extractor.precision, threads)
    else:
        graph = OnnxGraph(path, device, threads)
    graph.check(path, ("crops",), ("features",))
    return graph


def _answers(exported: ExportedRecord) -> tuple[str, ...]:
    """Return the outputs of the head that the record tells of."""
    of_frames = exported.head.level == "frame"
    if exported.record.scale is not None:
        return ("value", "frame_values") if of_frames else ("value",)
    return ("label", "probabilities", *(("votes", "frame_probabilities") if of_frames else ()))


def _answer(found: Mapping[str, NDArray[Any]]) -> Answer:
    return Answer(
        found.get("label"),
        found.get("probabilities"),
        found.get("votes"),
        found.get("frame_probabilities"),
        found.get("value"),
        found.get("frame_values"),
    )
