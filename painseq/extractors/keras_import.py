"""Import the weights of a Keras VGG16, such as a heat-pain network trained in Keras."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from painseq.errors import PainseqError

if TYPE_CHECKING:
    import h5py

# The 13 convolutions: torchvision's index in `features`, input channels, output channels.
_CONVOLUTIONS = (
    (0, 3, 64),
    (2, 64, 64),
    (5, 64, 128),
    (7, 128, 128),
    (10, 128, 256),
    (12, 256, 256),
    (14, 256, 256),
    (17, 256, 512),
    (19, 512, 512),
    (21, 512, 512),
    (24, 512, 512),
    (26, 512, 512),
    (28, 512, 512),
)


def read_keras(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a Keras VGG16, named as in `painseq.extractors.VGG16`.

    The 13 convolutions, ordered by the numbers in their names, become `features.N`; the dense layer from 512 to 1024
    becomes `fc_1024`; every other dense layer (the classes) becomes `classifier.N`, which VGG16 ignores. The network
    must pool directly after block5_conv3, without block5_pool, to give the same features as `VGG16`; this cannot be
    checked from the weights.

    Args:
        path: a .h5 (Keras 2 or 3, whole model or weights) or .keras file; the VGG16 may be a submodel.

    Raises:
        PainseqError: h5py is not installed, the file is not a Keras file, or it does not hold a VGG16.
    """
    try:
        import h5py
    except ImportError as error:
        raise PainseqError(
            f"Reading {path} needs h5py, which is not installed. In painseq's folder run: pip install -e "
            "'.[keras-import]'."
        ) from error
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read("model.weights.h5"))
            with h5py.File(content, "r") as file:
                layers = _layers(file)
        else:
            with h5py.File(path, "r") as file:
                layers = _layers(file)
    except (OSError, zipfile.BadZipFile, KeyError, RuntimeError) as error:
        raise PainseqError(f"{path} is not a readable Keras file: {error}.") from error
    return _renamed(layers, path)


def _layers(file: h5py.File) -> dict[str, dict[str, np.ndarray]]:
    """Read kernel and bias of each layer, by the layer's path in the file."""
    import h5py

    root = file.get("model_weights", file)
    layers: dict[str, dict[str, np.ndarray]] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        # Keras 2 and 3 write <layer>/kernel:0 or <layer>/kernel; the newer format <layer>/vars/0.
        match = re.fullmatch(r"(.+?)/(?:vars/0|kernel(?::0)?|vars/1|bias(?::0)?)", name)
        if match and isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            kind = "kernel" if re.search(r"(vars/0|kernel(:0)?)$", name) else "bias"
            layers.setdefault(match.group(1), {})[kind] = np.asarray(item[()])

    root.visititems(visit)
    return layers


def _layer_number(layer: str) -> tuple[int, ...]:
    """Return the sort key of a layer, from its name: block3_conv2 is (3, 2), conv2d is (0,), conv2d_7 is (7,)."""
    name = layer.rpartition("/")[2]
    if match := re.fullmatch(r"block(\d+)_conv(\d+)(?:_\d+)?", name):
        return int(match.group(1)), int(match.group(2))
    match = re.search(r"_(\d+)$", name)
    return (int(match.group(1)) if match else 0,)


def _renamed(layers: dict[str, dict[str, np.ndarray]], path: Path) -> dict[str, Tensor]:
    convolutions = [name for name, layer in layers.items() if "kernel" in layer and layer["kernel"].ndim == 4]
    dense = [name for name, layer in layers.items() if "kernel" in layer and layer["kernel"].ndim == 2]
    others = sorted(layers.keys() - set(convolutions) - set(dense))
    if len(convolutions) != len(_CONVOLUTIONS) or others:
        raise PainseqError(
            f"{path} does not hold a VGG16: it has {len(convolutions)} convolutions, VGG16 has "
            f"{len(_CONVOLUTIONS)}; other layers with weights: {', '.join(others[:3]) or 'none'}."
        )
    tensors: dict[str, Tensor] = {}
    for name, (index, inputs, outputs) in zip(sorted(convolutions, key=_layer_number), _CONVOLUTIONS, strict=True):
        kernel, bias = layers[name]["kernel"], layers[name].get("bias")
        if kernel.shape != (3, 3, inputs, outputs) or bias is None or bias.shape != (outputs,):
            raise PainseqError(
                f"{path}: layer {name} should be VGG16's 3 x 3 convolution from {inputs} to {outputs} channels with "
                f"bias, but its kernel is {kernel.shape}, its bias {None if bias is None else bias.shape}."
            )
        tensors[f"features.{index}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        tensors[f"features.{index}.bias"] = torch.from_numpy(bias)
    for number, name in enumerate(sorted(dense, key=_layer_number)):
        kernel, bias = layers[name]["kernel"], layers[name].get("bias")
        target = "fc_1024" if kernel.shape == (512, 1024) else f"classifier.{number}"
        if f"{target}.weight" in tensors:
            raise PainseqError(f"{path} has more than one dense layer from 512 to 1024.")
        tensors[f"{target}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.T))
        if bias is not None:
            tensors[f"{target}.bias"] = torch.from_numpy(bias)
    return tensors
