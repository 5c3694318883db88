"""The graphs of an exported folder, run by onnxruntime or OpenVINO: named arrays in, named arrays out."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError

Arrays = dict[str, NDArray[Any]]


class Graph(ABC):
    """A network of an exported folder.

    Args:
        inputs: names of its inputs.
        outputs: names of its outputs.
        on: what runs it, and in which precision, for people.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    on: str

    @abstractmethod
    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the network: one array for each input, one for each output."""

    @abstractmethod
    def takes(self, name: str) -> np.dtype[Any]:
        """Return the type of an input."""

    def check(self, path: Path, inputs: Collection[str], outputs: Collection[str]) -> None:
        """Check that the graph takes exactly these inputs, and gives at least these outputs.

        Raises:
            PainseqError: it does not.
        """
        if set(self.inputs) != set(inputs) or not set(outputs) <= set(self.outputs):
            raise PainseqError(
                f"{path} is damaged: it takes {', '.join(self.inputs)} and gives {', '.join(self.outputs)}, not "
                f"{', '.join(inputs)} and {', '.join(outputs)}. Export the checkpoint again."
            )


class NoDevice(PainseqError):
    """onnxruntime cannot use the GPU that is asked for."""


class OnnxGraph(Graph):
    """A graph run by onnxruntime.

    Args:
        path: the .onnx file.
        device: "cpu", or a GPU: "cuda", "cuda:1", ...
        threads: threads of a network; None: as many as the machine has cores.

    Raises:
        NoDevice: onnxruntime has no such GPU, or cannot use it.
        PainseqError: onnxruntime is missing, or cannot read the file.
    """

    def __init__(self, path: Path, device: str = "cpu", threads: int | None = None) -> None:
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        # Threads that wait for work by spinning take the cores of others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        failures, providers = _failures(), _providers(runtime, device)
        kind = PainseqError if device == "cpu" else NoDevice
        try:
            # By itself it would go on with the CPU.
            self._session = runtime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        except failures as error:
            raise kind(f"onnxruntime {runtime.__version__} cannot load {path}: {_first_line(error)}") from error
        if device != "cpu" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise NoDevice(
                f"device is {device!r}, but onnxruntime {runtime.__version__} cannot use a GPU here. Check the driver "
                "and the libraries of CUDA that this version needs, or use the CPU (command line: --device cpu)."
            )
        self._failures = failures
        self._path = path
        self.inputs = tuple(entry.name for entry in self._session.get_inputs())
        self.outputs = tuple(entry.name for entry in self._session.get_outputs())
        self._types = {entry.name: _TYPES[entry.type] for entry in self._session.get_inputs() if entry.type in _TYPES}
        self.on = "onnxruntime"

    def takes(self, name: str) -> np.dtype[Any]:
        """See `Graph.takes`."""
        return np.dtype(self._types[name])

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        """See `Graph`."""
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        try:
            found = self._session.run(list(self.outputs), contiguous)
        except self._failures as error:
            raise PainseqError(f"{self._path} cannot be run: {_first_line(error)}") from error
        return dict(zip(self.outputs, found, strict=True))


class OpenVinoGraph(Graph):
    """A graph run by OpenVINO, on the CPU.

    Args:
        path: the .xml file, with its .bin file beside it.
        precision: "bf16" multiplies in bfloat16; other precisions are those of the file.
        threads: threads of a network; None: as many as the machine has cores.

    Raises:
        PainseqError: OpenVINO is missing, or cannot read the file.
    """

    def __init__(self, path: Path, precision: str, threads: int | None = None) -> None:
        try:
            openvino = importlib.import_module("openvino")
        except ImportError as error:
            raise PainseqError(
                f'{path} is run by OpenVINO, which is not installed: pip install "painseq[openvino]".'
            ) from error
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise PainseqError(f"OpenVINO {openvino.__version__} cannot load {path}: {_first_line(error)}") from error
        self._path = path
        self.inputs = tuple(entry.get_any_name() for entry in self._compiled.inputs)
        self.outputs = tuple(entry.get_any_name() for entry in self._compiled.outputs)
        self.on = "openvino"

    def takes(self, name: str) -> np.dtype[Any]:
        """See `Graph.takes`."""
        kind: np.dtype[Any] = np.dtype(self._compiled.input(name).get_element_type().to_dtype())
        return kind

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        """See `Graph`."""
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        try:
            found = self._compiled(contiguous)
        except RuntimeError as error:
            raise PainseqError(f"{self._path} cannot be run: {_first_line(error)}") from error
        # OpenVINO writes the next outputs into the same memory.
        return {name: np.array(found[name]) for name in self.outputs}


_TYPES = {
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
}


def _onnxruntime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise PainseqError(
            f"Exported models are run by onnxruntime, which cannot be imported ({error}): pip install onnxruntime."
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; its errors have no common base, and Python's own types for wrong arguments."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    kinds = (getattr(state, name) for name in dir(state))
    own = tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError)


def _providers(runtime: Any, device: str) -> list[Any]:
    kind, _, number = device.partition(":")
    if kind == "cpu" and not number:
        return ["CPUExecutionProvider"]
    if kind != "cuda" or not (number.isdecimal() or not number):
        raise PainseqError(f"device is {device!r}; an exported model runs on cpu, cuda, cuda:0, ...")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise NoDevice(
            f"device is {device!r}, but onnxruntime here runs on the CPU only. Replace it (pip uninstall onnxruntime, "
            "then pip install onnxruntime-gpu), or use the CPU (command line: --device cpu)."
        )
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]


def has_gpu_build() -> bool:
    """Whether onnxruntime is built for GPUs; there need not be one."""
    return "CUDAExecutionProvider" in _onnxruntime().get_available_providers()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
