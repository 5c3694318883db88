"""What a model says of itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from painseq.errors import PainseqError
from painseq.faces import FaceCrops, FullFrame
from painseq.heads import Head, LinearProbe
from painseq.model.pain_model import PainModel
from painseq.model.record import StreamRecord
from painseq.spec import spec_of
from painseq.video import write_video


class Constant(Head):
    """Without any weights."""

    level = "video"

    def forward(self, x, mask):
        return torch.zeros(len(x), self.num_classes)


def test_a_model_without_weights_is_on_the_cpu(make_record):
    model = PainModel(make_record(in_shape=(4,)), Constant((4,), 3), None, None)
    assert model.device == torch.device("cpu")
    assert model.classify(torch.zeros(1, 2, 4), torch.ones(1, 2, dtype=torch.bool)).shape == (1, 3)


class FivePoints(FullFrame):
    """Finds five landmarks in every frame."""

    def locate(self, images, times_s, video):
        found = super().locate(images, times_s, video)
        points = np.random.default_rng(0).uniform(0, 32, (5, 2)).astype(np.float32)
        return [[replace(face, landmarks=points) for face in faces] for faces in found]


def test_a_video_that_does_not_fit_the_model_is_told(make_record, tmp_path):
    write_video(tmp_path / "video.mp4", iter(np.zeros((10, 32, 32, 3), np.uint8)), 5)
    for points, in_shape in ((5, (10,)), (68, (136,))):
        head = LinearProbe(in_shape, 3)
        record = make_record(head=spec_of(head), in_shape=in_shape, streams=(StreamRecord("landmarks", {}),))
        model = PainModel(record, head, None, FaceCrops(FivePoints(), size_px=32))
        if points == 5:
            assert model.predict(tmp_path / "video.mp4").label is not None
        else:
            with pytest.raises(PainseqError, match=r"FivePoints.*\(10,\).*\(136,\)"):
                model.predict(tmp_path / "video.mp4")
    head = LinearProbe((10,), 3)
    head.max_frames = 9
    record = make_record(head=spec_of(head), in_shape=(10,), streams=(StreamRecord("landmarks", {}),))
    model = PainModel(record, head, None, FaceCrops(FivePoints(), size_px=32))
    with pytest.raises(PainseqError, match=r"at most 9 frames, but this one has 10.*--end-s"):
        model.predict(tmp_path / "video.mp4")
    assert model.predict(tmp_path / "video.mp4", end_s=1.7).frames == 9
