"""Import the weights of a Keras VGG16, such as a heat-pain network trained in Keras."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from painseq.errors import PainseqError
from painseq.files import parse_json

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

MAX_BYTES = 2 * 2**30
"""A file whose layers are larger is no VGG16: with its classifier, that has 553 MB."""
_MAX_CONFIG_BYTES = 64 * 2**20

_FC_WIDTH = 1024
_DAMAGED = (AttributeError, TypeError, ValueError)

# The number of convolutions before each max pooling.
_POOLED_AFTER = (2, 4, 7, 10)


def read_keras(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a Keras VGG16, named as in `painseq.extractors.VGG16`.

    The 13 convolutions, ordered by the numbers in their names, become `features.N`; the dense layer from 512 to 1024
    becomes `fc_1024`; every other dense layer (the classes) becomes `classifier.N`, which VGG16 ignores.

    A file of a whole model holds its architecture too: a network that would give other features than `VGG16` with these
    weights is refused, such as one with block5_pool before its global average pooling. A file of weights alone does not
    tell; such a network must average directly after block5_conv3.

    Args:
        path: a .h5 (Keras 2 or 3, whole model or weights) or .keras file; the VGG16 may be a submodel.

    Raises:
        PainseqError: h5py is not installed, the file is not a Keras file, it does not hold a VGG16, or its architecture
            differs.
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
                content = io.BytesIO(_entry(archive, "model.weights.h5", MAX_BYTES))
                config = _entry(archive, "config.json", _MAX_CONFIG_BYTES)
            with h5py.File(content, "r") as file:
                layers, norms = _layers(file)
        else:
            with h5py.File(path, "r") as file:
                layers, norms = _layers(file)
                config = file.attrs.get("model_config")
        problem = "" if config is None else difference_from_vgg16(config)
    except (OSError, zipfile.BadZipFile, zlib.error, LookupError, MemoryError, RuntimeError, *_DAMAGED) as error:
        raise PainseqError(f"{path} is not a readable Keras file: {error}.") from error
    inner = [name for name, size in norms.items() if size < _FC_WIDTH]
    if config is None and inner:
        problem = f"it has the batch normalization {inner[0]}, which VGG16 has not"
    tensors = _renamed(layers, path)
    if problem:
        raise PainseqError(
            f"{path}: {problem}, so VGG16 would give other features with these weights than the network gave in Keras. "
            "Import a network whose global average pooling follows block5_conv3 directly. To start training from the "
            "convolutions all the same, save the model's weights alone (model.save_weights) and import these."
        )
    return tensors


def _entry(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    size = archive.getinfo(name).file_size
    if size > max_bytes:
        raise ValueError(f"{name} in it is {size} bytes, more than {max_bytes}")
    return archive.read(name)


def _steps(layer: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield class and configuration of each layer, in order; those of submodels and wrapped layers in their place."""
    config = layer["config"]
    if isinstance(config, dict) and "layers" in config:
        for inner in config["layers"]:
            yield from _steps(inner)
    elif isinstance(config, dict) and isinstance(config.get("layer"), dict):
        yield from _steps(config["layer"])
    else:
        yield str(layer["class_name"]), config


def difference_from_vgg16(architecture: str | bytes) -> str:
    """Describe how a network differs from `VGG16` apart from its weights; empty if it does not, or does not tell.

    What follows the last convolution matters only if the network pools globally: otherwise only its convolutions are of
    use.

    Args:
        architecture: Keras's JSON, as `model.to_json()` writes it.

    Raises:
        ValueError, KeyError, TypeError: it is damaged.
    """
    steps = list(_steps(parse_json(architecture)))
    kinds = [kind for kind, _ in steps]
    if "Conv2D" not in kinds:
        return ""
    last = len(kinds) - 1 - kinds[::-1].index("Conv2D")
    dense = kinds.index("Dense", last) if "Dense" in kinds[last:] else len(kinds)
    for place, (kind, config) in enumerate(steps):
        if kind == "Conv2D" and (config.get("padding") != "same" or set(config.get("strides", ())) != {1}):
            return f"its layer {config['name']} has padding {config.get('padding')}, strides {config.get('strides')}"
        counts = kind == "Conv2D" or (place == dense and config.get("units") == _FC_WIDTH)
        if counts and (activation := _activation(steps, place)) != "relu":
            return f"the activation of its layer {config['name']} is {activation}, not relu"
    pooled_after = [kinds[:place].count("Conv2D") for place in range(last) if kinds[place] == "MaxPooling2D"]
    if pooled_after != list(_POOLED_AFTER) or any("Pooling" in kind and kind[:3] != "Max" for kind in kinds[:last]):
        return f"it does not pool by the maximum after {', '.join(map(str, _POOLED_AFTER))} convolutions"
    if norm := _normalised(steps, last, dense):
        return f"it has a {norm}, which VGG16 has not"
    head = [kind for kind in kinds[last:dense] if "Pooling" in kind]
    if any("Global" in kind for kind in head) and head != ["GlobalAveragePooling2D"]:
        return f"after its last convolution it has {' and '.join(head)}"
    return ""


def _normalised(steps: Sequence[tuple[str, dict[str, Any]]], last: int, dense: int) -> str:
    """Return the kind of a normalization that changes the features; one behind the features does not.

    Args:
        steps: the layers.
        last: place of the last convolution.
        dense: place of the first dense layer after it.
    """
    kinds = [kind for kind, _ in steps]
    pooling = next((place for place in range(last, dense) if "Global" in kinds[place]), None)
    has_fc = dense < len(steps) and steps[dense][1].get("units") == _FC_WIDTH
    end = last if pooling is None else dense if has_fc else pooling
    # Keras calls the layer that normalises its input Normalization; it is part of the preprocessing.
    return next((kind for kind in kinds[:end] if kind.endswith("Normalization") and kind != "Normalization"), "")


def _activation(steps: Sequence[tuple[str, dict[str, Any]]], place: int) -> str:
    """Return the name of a layer's activation, which may be a separate layer after it."""
    own = steps[place][1].get("activation")
    name = str(own.get("config") if isinstance(own, dict) else own)
    if name == "linear" and place + 1 < len(steps):
        kind, config = steps[place + 1]
        return "relu" if kind == "ReLU" else str(config.get("activation")) if kind == "Activation" else name
    return name


def _layers(file: h5py.File) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, int]]:
    """Read kernel and bias of each layer, by the layer's path in the file, and the width of each batch normalization.

    Raises:
        ValueError: the layers are too large.
    """
    import h5py

    root = file.get("model_weights", file)
    layers: dict[str, dict[str, np.ndarray]] = {}
    norms: dict[str, int] = {}
    total_bytes = 0

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        nonlocal total_bytes
        norm = re.fullmatch(r"(.+?)/(?:vars/3|moving_variance(?::0)?)", name)
        if norm and isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            norms[norm.group(1)] = int(item.size or 0)
        # Keras 2 and 3 write <layer>/kernel:0 or <layer>/kernel; the newer format <layer>/vars/0.
        match = re.fullmatch(r"(.+?)/(?:vars/0|kernel(?::0)?|vars/1|bias(?::0)?)", name)
        if match and isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            total_bytes += item.nbytes
            if total_bytes > MAX_BYTES:
                raise ValueError(f"its layers have more than {MAX_BYTES} bytes")
            kind = "kernel" if re.search(r"(vars/0|kernel(:0)?)$", name) else "bias"
            layers.setdefault(match.group(1), {})[kind] = np.asarray(item[()])

    root.visititems(visit)
    return {name: layer for name, layer in layers.items() if name not in norms}, norms


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
