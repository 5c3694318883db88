"""Explanations of a model on a GPU, where there is none: tensors that say they lie elsewhere, and compute on the CPU.

As on a GPU, they go neither together with tensors of the CPU nor into NumPy, and back only when they are asked to.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from painseq.explain import (
    MethodOptions,
    RandomisationOptions,
    Scorer,
    explain,
    explainer_of,
    features_of,
    randomisation_check,
    space_methods,
    time_methods,
)
from painseq.explain.ranking import method_scores
from painseq.model.averaging import AveragedModel
from painseq.model.pain_model import PainModel

# PyTorch needs no driver for it; what it lacks, values, is in `Elsewhere`.
DEVICE = torch.device("meta")
MOVES = ("aten::_to_copy", "aten::copy_")
INDEXES = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class Elsewhere(Tensor):
    """A tensor whose values lie on the CPU, in `held`, and which says that they lie on `DEVICE`."""

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("A tensor of another device cannot be converted to NumPy.")

    __array__ = numpy

    def __deepcopy__(self, memo: dict[int, Any]) -> "Elsewhere":
        memo[id(self)] = Elsewhere(self.held.clone()).requires_grad_(self.requires_grad)
        return memo[id(self)]


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, given = func._schema.name, [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = {id(tensor.held): tensor for tensor in given if isinstance(tensor, Elsewhere)}
    if there and name not in MOVES:
        for tensor in given:
            # Numbers go with any device, and so do indices.
            index = name in INDEXES and tensor is not args[0] and tensor.dtype in (torch.bool, torch.int64)
            assert isinstance(tensor, Elsewhere) or not tensor.ndim or index, f"{name} of two devices"
    device = kwargs.get("device")
    elsewhere = bool(there) if device is None else torch.device(device) == DEVICE
    if name == "aten::copy_":
        elsewhere = isinstance(args[0], Elsewhere)
    plain = tree_map(lambda leaf: leaf.held if isinstance(leaf, Elsewhere) else leaf, (args, kwargs))
    out = func(*plain[0], **{**plain[1], **({"device": "cpu"} if device is not None else {})})

    def back(leaf: Any) -> Any:
        if id(leaf) in there:
            # In place.
            return there[id(leaf)]
        return Elsewhere(leaf) if elsewhere and isinstance(leaf, Tensor) else leaf

    return tree_map(back, out)


class PretendedDevice(TorchDispatchMode):
    """Makes tensors of the CPU `Elsewhere` when they are moved or made there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    make = torch.tensor

    def moved(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        # It moves what it makes unseen by modes.
        return make(*args, **kwargs) if device is None else make(*args, **kwargs).to(device)

    monkeypatch.setattr(torch, "tensor", moved)
    with PretendedDevice():
        yield


def moved_there(model: PainModel) -> PainModel:
    model = copy.deepcopy(model)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(Elsewhere(parameter.data), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else Elsewhere(buffer)
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
    return model


def test_devices_are_told_apart(device):
    there = torch.ones(2, 3).to(DEVICE)
    assert float((2 * there).sum()) == 12 and type(there.cpu()) is Tensor and there.tolist()[0] == [1, 1, 1]
    with pytest.raises(AssertionError, match="devices"):
        there + torch.ones(3)
    with pytest.raises(TypeError, match="NumPy"):
        there.numpy()


@pytest.mark.parametrize("name", ["frame_ann", "lstm", "attention_mil", "two_stream", "vivit"])
def test_every_method_explains_a_model_on_another_device_as_on_the_cpu(made, device, name):
    model, crops = made(name, 2, loss="corn") if name == "frame_ann" else made(name)
    other = moved_there(model)
    features = features_of(model, crops)
    torch.testing.assert_close(features_of(other, crops).x, features.x)
    for clip, methods in ((crops, space_methods(model)), (features, time_methods(model))):
        for method in methods:
            here, there = (
                explain(one, clip, method, 1, MethodOptions(most_steps=8, patch_px=16)) for one in (model, other)
            )
            assert type(there.values) is Tensor, method
            torch.testing.assert_close(there.values, here.values, rtol=1e-3, atol=1e-5)


def test_maps_are_measured_on_another_device_as_on_the_cpu(made, device):
    model, clip = made("lstm")
    other = moved_there(model)
    here, there = (method_scores(Scorer(one, clip, 1), "space", ["saliency"], 8)[0] for one in (model, other))
    for number in ("deletion", "insertion", "infidelity", "sensitivity"):
        assert getattr(there, number) == pytest.approx(getattr(here, number), rel=1e-3, abs=1e-4), number
    explainer = explainer_of("saliency", "space", 8)
    first, second = (
        randomisation_check(one, [clip], explainer, options=RandomisationOptions(parts=[])).survives
        for one in (model, other)
    )
    assert first == second


def test_averaged_models_are_explained_on_another_device(made, device):
    model, crops = made("attention_mil")
    clip, both = features_of(model, crops), AveragedModel([moved_there(model), moved_there(model)])
    torch.testing.assert_close(explain(both, clip, "attention").values, explain(model, clip, "attention").values)
