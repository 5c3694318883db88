"""Heads that start as Keras' layers do, and as PyTorch's do unless told otherwise."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from painseq.errors import PainseqError
from painseq.heads import LSTM, BiLSTMAttention, FrameANN, Head, StackedLSTM, TwoStream
from painseq.spec import spec_of

D, K = 40, 3
HEADS = {
    "lstm": lambda **init: LSTM((D,), K, **init),
    "stacked_lstm": lambda **init: StackedLSTM((D,), K, **init),
    "bilstm_attention": lambda **init: BiLSTMAttention((D,), K, **init),
    "two_stream": lambda **init: TwoStream((D,), K, landmarks=6, **init),
    "two_stream_landmarks": lambda **init: TwoStream((12,), K, landmarks=6, only="landmarks", **init),
    "frame_ann": lambda **init: FrameANN((D,), K, **init),
}


def made(name: str, **init: str) -> Head:
    torch.manual_seed(1)
    return HEADS[name](**init)


@pytest.mark.parametrize("name", HEADS)
def test_the_default_draws_as_before(name):
    default, torchs = made(name), made(name, init="torch")
    after = torch.rand(1)
    made(name)
    assert torch.equal(torch.rand(1), after)  # Not a number more is drawn.
    for left, right in zip(default.state_dict().values(), torchs.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    assert spec_of(default)["init_args"]["init"] == "torch"


@pytest.mark.parametrize("name", HEADS)
def test_keras_defaults(name):
    head = made(name, init="keras")
    recurrent = [module for module in head.modules() if isinstance(module, nn.LSTM)]
    dense = [module for module in head.modules() if isinstance(module, nn.Linear)]
    assert dense and bool(recurrent) == (name != "frame_ann")
    for lstm in recurrent:
        units = lstm.hidden_size
        kernel, recurrence = lstm.weight_ih_l0, lstm.weight_hh_l0
        limit = (6 / (kernel.shape[1] + 4 * units)) ** 0.5
        assert 0.9 * limit < float(kernel.abs().max()) <= limit
        torch.testing.assert_close(recurrence.T @ recurrence, torch.eye(units), atol=1e-5, rtol=0)
        bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).reshape(4, units)
        assert torch.equal(bias, torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None].expand(4, units))  # input, forget, ...
    for layer in dense:
        limit = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.8 * limit < float(layer.weight.abs().max()) <= limit and not bool(layer.bias.any())


@pytest.mark.slow
def test_it_is_drawn_from_the_distributions_of_keras():
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    code = """
import json, keras, numpy as np
keras.utils.set_random_seed(0)
layer = keras.layers.LSTM(32)
layer.build((None, 7, 40))
kernel, recurrence, bias = (np.asarray(weight) for weight in layer.get_weights())
print(json.dumps([float(np.abs(kernel).max()), (recurrence @ recurrence.T).tolist(), bias.reshape(4, 32).tolist()]))
"""
    environment = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    told = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
    largest, product, bias = json.loads(told.stdout.splitlines()[-1])
    ours = made("lstm", init="keras").lstm_first
    assert float(ours.weight_ih_l0.abs().max()) == pytest.approx(largest, rel=0.02)
    np.testing.assert_allclose(product, np.eye(32), atol=1e-5)
    np.testing.assert_array_equal(bias, ours.bias_ih_l0.detach().reshape(4, 32).numpy())


def test_another_initialisation_is_refused():
    with pytest.raises(PainseqError, match=r"(?=.*LSTM)(?=.*jax)(?=.*torch)(?=.*keras)"):
        LSTM((D,), K, init="jax")
