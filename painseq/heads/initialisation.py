"""The random weights that a head starts from."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from painseq.errors import PainseqError

Init = Literal["torch", "keras"]


def initialise(head: nn.Module, init: Init) -> None:
    """Draw the weights of a head's LSTMs and dense layers again, unless `init` is "torch": then nothing is drawn.

    "keras" draws as Keras does by default: uniform weights (Glorot and Bengio 2010), orthogonal recurrent weights,
    biases of zero, and of one for the forget gates, so that a new LSTM remembers. PyTorch draws all weights and biases
    of an LSTM uniformly within 1 / sqrt(units).

    Raises:
        PainseqError: another `init`.
    """
    if init not in get_args(Init):
        raise PainseqError(f"{type(head).__name__}: init is {init!r}; use {' or '.join(get_args(Init))}.")
    if init == "torch":
        return
    for module in head.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LSTM):
            _like_keras(module)


def _like_keras(lstm: nn.LSTM) -> None:
    for name, values in lstm.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(values)
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(values)
        else:
            torch.nn.init.zeros_(values)
        if name.startswith("bias_ih"):  # PyTorch adds two biases; one of them stands for Keras's only one.
            torch.nn.init.ones_(values[lstm.hidden_size : 2 * lstm.hidden_size])
