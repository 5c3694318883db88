"""Weights of a real Keras VGG16, in every file format, give Keras's own features."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from painseq.errors import PainseqError
from painseq.extractors import VGG16, read_weights
from painseq.extractors.keras_import import difference_from_vgg16

h5py = pytest.importorskip("h5py")
if importlib.util.find_spec("keras") is None:  # Not imported here: it would look for TensorFlow.
    pytest.skip("keras is not installed", allow_module_level=True)

pytestmark = pytest.mark.slow

# Keras picks its backend at import, once a process: so it works in one of its own.
MAKE = """
import sys
from pathlib import Path
import keras, numpy as np
out = Path(sys.argv[1])
keras.utils.set_random_seed(0)
base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
last = base.get_layer("block5_conv3").output

def top(x):
    x = keras.layers.GlobalAveragePooling2D()(x)
    dense = keras.layers.Dense(1024, activation="relu")(x)
    return dense, keras.layers.Dense(2, activation="softmax")(dense)

dense, classes = top(last)
flat = keras.Model(base.input, classes)
for weight in flat.weights:  # biases start at zero in Keras, which would hide a mistake
    if weight.ndim == 1:
        weight.assign(np.random.default_rng(weight.shape[0]).normal(0, 0.05, weight.shape))
x = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("float32")
caffe = x[..., ::-1] - np.array([103.939, 116.779, 123.68], "float32")
features = keras.ops.convert_to_numpy(keras.Model(base.input, dense)(caffe))
pooled = keras.ops.convert_to_numpy(keras.Model(base.input, keras.layers.GlobalAveragePooling2D()(last))(caffe))
np.savez(out / "expected.npz", x=x, features=features, pooled=pooled)

sub = keras.Model(base.input, last, name="vgg16")
image = keras.Input((32, 32, 3))
_, classes = top(sub(image))
nested = keras.Model(image, classes)
nested.layers[-2].set_weights(flat.layers[-2].get_weights())
nested.compile(optimizer=keras.optimizers.SGD(momentum=0.9), loss="categorical_crossentropy")
nested.optimizer.build(nested.trainable_variables)  # its state lies in the file too

for name, model in (("flat", flat), ("nested", nested)):
    model.save(out / f"{name}.h5")
    model.save(out / f"{name}.keras")
flat.save_weights(out / "flat.weights.h5")
base.save(out / "without_top.keras")

# Architectures for the same weights.
def classified(x, pool=keras.layers.GlobalAveragePooling2D, activation="relu", separate=False):
    x = keras.layers.Dense(1024, activation=None if separate else activation)(pool()(x))
    x = keras.layers.Activation(activation)(x) if separate else x
    return keras.layers.Dense(2, activation="softmax")(x)

layers = keras.layers
frames = layers.TimeDistributed(keras.Model(base.input, classified(base.output)))(keras.Input((9, 32, 32, 3)))
tail = [layers.GlobalAveragePooling2D(), layers.Dense(1024, activation="relu"), layers.Dense(2)]
whole = keras.Model(base.input, base.output, name="whole")
pooled_first = keras.Model(base.input, classified(base.output))
built = {
    "flat": flat,
    "nested": nested,
    "separate_relu": keras.Model(base.input, classified(last, separate=True)),
    "sequential": keras.Sequential([keras.Input((32, 32, 3)), *base.layers[1:-1], *tail]),
    "convolutions_alone": base,
    "imagenet": keras.Model(base.input, layers.Dense(1024, activation="relu")(layers.Flatten()(base.output))),
    "pool_before_average": pooled_first,
    "pool_in_submodel": keras.Model(image, classified(whole(image))),
    "pool_in_time": keras.Model(inputs=frames._keras_history.operation.input, outputs=frames),
    "maximum": keras.Model(base.input, classified(last, layers.GlobalMaxPooling2D)),
    "tanh": keras.Model(base.input, classified(last, activation="tanh")),
}
def normalised(place, width=1024):
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(last) if place == "convolutions" else last)
    x = layers.BatchNormalization()(x) if place == "pooling" else x
    x = layers.Dense(width, activation="relu")(x)
    x = layers.BatchNormalization()(x) if place == "dense" else x
    return keras.Model(base.input, layers.Dense(2)(layers.Dropout(0.5)(x)))

built |= {
    "norm_behind_dense": normalised("dense"),
    "norm_before_dense": normalised("pooling"),
    "norm_before_classes": normalised("pooling", width=64),
    "norm_before_pooling": normalised("convolutions"),
}
for name in ("norm_behind_dense", "norm_before_pooling"):
    copied = [layer for layer in built[name].layers if layer.name.startswith("dense")][0]
    copied.set_weights(flat.layers[-2].get_weights())
    built[name].save(out / f"{name}.keras")
    built[name].save(out / f"{name}.h5")
    built[name].save_weights(out / f"{name}.weights.h5")
for name, model in built.items():
    (out / f"{name}.json").write_text(model.to_json())
pooled_first.set_weights(flat.get_weights())
pooled_first.save(out / "pool_before_average.h5")
pooled_first.save(out / "pool_before_average.keras")
pooled_first.save_weights(out / "pool_before_average.weights.h5")
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("keras")
    environment = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1", "KERAS_HOME": str(out / "home")}
    command = [sys.executable, "-c", MAKE, str(out)]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=900)
    return out


NORMALISED = [f"norm_behind_dense.{suffix}" for suffix in ("h5", "keras", "weights.h5")]


@pytest.mark.parametrize("suffix", ["h5", "keras", "weights.h5"])
def test_a_normalization_before_the_features_is_refused(made, suffix):
    with pytest.raises(PainseqError, match=rf"norm_before_pooling\.{suffix}.*(?i:batch.?normalization)"):
        read_weights(str(made / f"norm_before_pooling.{suffix}"))


FILES = ["flat.h5", "flat.keras", "flat.weights.h5", "nested.h5", "nested.keras", *NORMALISED]


@pytest.mark.parametrize("file", FILES)
def test_features_are_those_of_keras(made, file):
    extractor = VGG16(str(made / file), fc=True, input_size_px=32, preprocessing="caffe")
    expected = np.load(made / "expected.npz")
    x = torch.from_numpy(expected["x"]).permute(0, 3, 1, 2).to(torch.uint8)
    with torch.no_grad():
        np.testing.assert_allclose(extractor(x).numpy(), expected["features"], atol=1e-4, rtol=1e-4)
        maps = extractor.maps(x)
    np.testing.assert_allclose(maps.mean((2, 3)).numpy(), expected["pooled"], atol=1e-4, rtol=1e-4)
    assert expected["features"].max() > 0.1
    assert "classifier.1.bias" in extractor.loaded and "classifier.1.weight" in extractor.loaded


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_network_that_would_give_other_features_is_refused(made, suffix):
    facts = rf"(?s)(?=.*pool_before_average\.{suffix})(?=.*MaxPooling2D and GlobalAveragePooling2D)"
    with pytest.raises(PainseqError, match=facts):
        VGG16(str(made / f"pool_before_average.{suffix}"), fc=True, input_size_px=32, preprocessing="caffe")


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("flat", ""),
        ("nested", ""),
        ("separate_relu", ""),
        ("sequential", ""),
        ("convolutions_alone", ""),
        ("imagenet", ""),
        ("pool_before_average", "MaxPooling2D and GlobalAveragePooling2D"),
        ("pool_in_submodel", "MaxPooling2D and GlobalAveragePooling2D"),
        ("pool_in_time", "MaxPooling2D and GlobalAveragePooling2D"),
        ("maximum", "GlobalMaxPooling2D"),
        ("tanh", "tanh"),
        ("norm_behind_dense", ""),
        ("norm_before_classes", ""),
        ("norm_before_dense", "BatchNormalization"),
        ("norm_before_pooling", "BatchNormalization"),
    ],
)
def test_architectures_for_the_same_weights(made, name, fact):
    told = difference_from_vgg16((made / f"{name}.json").read_text())
    assert fact in told and bool(fact) == bool(told)


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        ('"padding": "same"', '"padding": "valid"', "block1_conv1.*valid"),
        ('"strides": [1, 1]', '"strides": [2, 2]', "block1_conv1.*2"),
        ('"activation": "relu"', '"activation": "elu"', "block1_conv1.*elu"),
        ('"class_name": "MaxPooling2D"', '"class_name": "AveragePooling2D"', "maximum.*2, 4, 7, 10"),
    ],
)
def test_other_convolutions_and_poolings(made, old, new, fact):
    text = (made / "flat.json").read_text()
    assert old in text and re.search(fact, difference_from_vgg16(text.replace(old, new)))


def test_weights_alone_do_not_tell_the_architecture(made):
    assert "fc_1024.weight" in read_weights(str(made / "pool_before_average.weights.h5"))[0]


def test_a_damaged_architecture(made, tmp_path):
    shutil.copy(made / "flat.h5", tmp_path / "odd.h5")
    with h5py.File(tmp_path / "odd.h5", "a") as file:
        file.attrs["model_config"] = "{"
    with pytest.raises(PainseqError, match=r"odd\.h5"):
        read_weights(str(tmp_path / "odd.h5"))


def test_without_dense_layers_it_is_the_pooled_vgg16(made):
    tensors, _ = read_weights(str(made / "without_top.keras"))
    assert len(tensors) == 26
    with pytest.raises(PainseqError, match=r"fc_1024"):
        VGG16(str(made / "without_top.keras"), fc=True, input_size_px=32)


def test_a_file_without_all_convolutions(made, tmp_path):
    with h5py.File(made / "flat.h5") as source, h5py.File(tmp_path / "short.h5", "w") as target:
        source.copy("model_weights", target)
        del target["model_weights/block3_conv2"]
    with pytest.raises(PainseqError, match=r"(?s)(?=.*short\.h5)(?=.*\b12\b)"):
        read_weights(str(tmp_path / "short.h5"))


def test_a_layer_of_another_shape(made, tmp_path):
    with h5py.File(made / "flat.h5") as source, h5py.File(tmp_path / "odd.h5", "w") as target:
        source.copy("model_weights", target)
        del target["model_weights/block1_conv1/block1_conv1/kernel"]
        target["model_weights/block1_conv1/block1_conv1/kernel"] = np.zeros((3, 3, 1, 64), np.float32)
    with pytest.raises(PainseqError, match=r"(?s)(?=.*block1_conv1)(?=.*\b3\b)(?=.*\b64\b)"):
        read_weights(str(tmp_path / "odd.h5"))


def test_an_hdf5_file_of_something_else(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["measurements"] = np.zeros(3)
    with pytest.raises(PainseqError, match=r"(?s)(?=.*other\.h5)(?=.*\b0\b)"):
        read_weights(str(tmp_path / "other.h5"))


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(PainseqError, match=r"other\.keras"):
        read_weights(str(tmp_path / "other.keras"))


def test_without_h5py_the_error_says_what_to_install(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(PainseqError, match=r"keras-import"):
        read_weights(str(made / "flat.h5"))
