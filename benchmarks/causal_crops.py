"""What crops without look-ahead, as a camera allows, change on real videos: boxes, features, labels.

    python benchmarks/causal_crops.py --assets ASSETS

ASSETS holds videos and models (see tests/conftest.py). Each video is cropped as a file, `FaceCrops()`, and without
look-ahead, `FaceCrops(causal=True)`, at its own frame rate and at 5 frames a second. Printed are the share of frames
on which the locator ran, frames with a face in one of both only, how far the edges of the crops lie apart (pixels of
224), and what two real networks make of it: the distance of VGG16's features relative to that of features one
second apart in the same video, and the frames in which the first of seven expressions is another.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

VIDEOS = ("single_face.mp4", "WolfgangLanger_Pexels.mp4", "face_noface.mov")
VGG16_EVERY = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True)
    args = parser.parse_args()
    from painseq.faces import FaceCrops, FaceMesh, YuNet

    weights = args.assets / "weights"
    yunet = str(weights / "detectors" / "face_detection_yunet_2023mar.onnx")
    mesh = FaceMesh(str(weights / "face_mesh" / "face_landmarker.task"), yunet)
    networks = Networks(weights)
    print("| locator | video | fps | located | face in one only | edges: max / 95 % / mean | features | expression |")
    print("|---|---|---|---|---|---|---|---|")
    for name, locator, every_s, rates in (
        ("YuNet", YuNet(yunet), 0.2, (None, 5.0)),
        ("YuNet, every_s 0.1", YuNet(yunet), 0.1, (None,)),
        ("YuNet, every_s 0", YuNet(yunet), 0.0, (None,)),
        ("FaceMesh", mesh, 0.2, (None,)),
    ):
        for video in VIDEOS:
            for fps in rates:
                face = FaceCrops(locator, every_s=every_s)
                print(
                    f"| {name} | {video} | {fps or 'all'} |", row(face, args.assets / "videos" / video, fps, networks)
                )


class Networks:
    """VGG16's pooled features, and the probabilities of seven expressions."""

    def __init__(self, weights: Path) -> None:
        import onnxruntime

        from painseq.extractors import VGG16

        self.vgg16 = VGG16(str(weights / "backbone" / "vgg16_imagenet_features_tvnorm_fp16.safetensors")).eval()
        self.expression = onnxruntime.InferenceSession(str(weights / "expression" / "faceapi_expression7.onnx"))

    def features(self, crops: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return np.concatenate([self.vgg16(torch.from_numpy(crop[None])).numpy() for crop in crops])

    def expressions(self, crops: np.ndarray) -> np.ndarray:
        small = [np.asarray(Image.fromarray(crop.transpose(1, 2, 0)).resize((112, 112))) for crop in crops]
        x = np.stack(small).transpose(0, 3, 1, 2).astype(np.float32)
        return np.concatenate(
            [self.expression.run(None, {self.expression.get_inputs()[0].name: one[None]})[0] for one in x]
        ).argmax(axis=1)


def arrays(face, video: Path, fps: float | None) -> list[np.ndarray]:
    """Crops, presence, boxes and times of a whole video."""
    chunks = list(face.clip(video, fps=fps))
    return [
        np.concatenate([getattr(chunk, part) for chunk in chunks]) for part in ("crops", "present", "boxes", "times_s")
    ]


def row(face, video: Path, fps: float | None, networks: Networks) -> str:
    """One video, cropped both ways."""
    live = face.as_causal()
    found = live.find_track(video, fps=fps)
    a, a_there, a_boxes, times_s = arrays(face, video, fps)
    b, b_there, b_boxes, _ = arrays(live, video, fps)
    both = np.flatnonzero(a_there & b_there)
    side = (a_boxes[both, 2] - a_boxes[both, 0])[:, None]
    apart_px = (np.abs(a_boxes[both] - b_boxes[both]) / side * 224).max(axis=1)
    step = VGG16_EVERY if fps is None else 1
    rate = 1 / float(np.median(np.diff(times_s)))
    first, second = networks.features(a[both[::step]]), networks.features(b[both[::step]])
    later = max(1, round(rate / step))
    usual = np.linalg.norm(first[later:] - first[:-later], axis=1).mean()
    features = np.linalg.norm(first - second, axis=1).mean() / usual
    other = int((networks.expressions(a[both]) != networks.expressions(b[both])).sum())
    edges = f"{apart_px.max():.1f} / {np.percentile(apart_px, 95):.1f} / {apart_px.mean():.1f}"
    only_one = int((a_there != b_there).sum())
    return f"{found.located / len(a):.0%} | {only_one} | {edges} | {features:.2f} | {other} of {len(both)} |"


if __name__ == "__main__":
    main()
