"""What a model says of itself."""

import torch

from painseq.heads import Head
from painseq.model.pain_model import PainModel


class Constant(Head):
    """Without any weights."""

    level = "video"

    def forward(self, x, mask):
        return torch.zeros(len(x), self.num_classes)


def test_a_model_without_weights_is_on_the_cpu(make_record):
    model = PainModel(make_record(in_shape=(4,)), Constant((4,), 3), None, None)
    assert model.device == torch.device("cpu")
    assert model.classify(torch.zeros(1, 2, 4), torch.ones(1, 2, dtype=torch.bool)).shape == (1, 3)
