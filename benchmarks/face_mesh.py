"""The face mesh on real videos: agreement with its makers' runtime, with several versions of OpenCV, and its speed.

    python benchmarks/face_mesh.py --assets ASSETS            # with the installed OpenCV
    python benchmarks/face_mesh.py --assets ASSETS --versions 4.12.0.88 4.14.0.94 5.0.0.93 --write

ASSETS holds videos, `golden_*_facelandmarker.npz` of the makers' own runtime, and the models (see tests/conftest.py).
Each version of OpenCV is installed into a temporary folder of its own. Printed are the largest distance of a
point from the makers' (the region of interest is theirs), the largest difference of a movement coefficient, the CPU
time of a followed frame on one core, and the peak memory of a video and of the same video ten times as long.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from results import RESULTS, machine, write_between

VIDEOS = ("single_face.mp4", "WolfgangLanger_Pexels.mp4", "face_noface.mov")
LIMITS = {"px": 0.5, "coefficient": 0.03}
GOAL_MS = 20


def agreement(assets: Path, video: str) -> dict[str, float]:
    """The largest differences from the makers' runtime in a video."""
    import numpy as np

    from painseq.faces.mesh_nets import FaceLandmarkerBundle, Region
    from painseq.video import open_video

    bundle = FaceLandmarkerBundle(str(assets / "weights" / "face_mesh" / "face_landmarker.task"))
    with np.load(assets / "golden" / f"golden_{Path(video).stem}_facelandmarker.npz") as stored:
        seen = np.isfinite(stored["roi"]).all(axis=1)
        known = {name: stored[name][seen] for name in stored.files}
    with open_video(assets / "videos" / video, "pyav") as opened:
        images = opened.frames(known["frame"].astype(np.int64))
    points = np.stack(
        [bundle.points(image, Region(*map(float, roi)))[0] for image, roi in zip(images, known["roi"], strict=True)]
    )
    return {
        "px": float(np.abs(points[..., :2] - known["landmarks"]).max()),
        "coefficient": float(np.abs(bundle.movements(points) - known["blendshapes"]).max()),
    }


def speed(assets: Path) -> float:
    """CPU milliseconds of a followed frame of 640 x 360, on one core: points and movements."""
    import time

    import cv2
    import numpy as np

    from painseq.faces import FaceMesh
    from painseq.video import open_video

    cv2.setNumThreads(1)
    weights = assets / "weights"
    yunet = weights / "detectors" / "face_detection_yunet_2023mar.onnx"
    mesh = FaceMesh(str(weights / "face_mesh" / "face_landmarker.task"), str(yunet))
    with open_video(assets / "videos" / VIDEOS[1], "pyav") as opened:
        images, times_s = opened.frames(np.arange(200)), opened.times_s[:200]
    follow = mesh.follow(Path())
    follow(images[:20], times_s[:20])
    spent = []
    for first in range(20, 200, 60):
        start = time.process_time()
        for faces in follow(images[first : first + 60], times_s[first : first + 60]):
            mesh.bundle.movements(faces[0].landmarks[None])
        spent.append((time.process_time() - start) / 60 * 1000)
    return min(spent)


def peak_mb(assets: Path, times: int) -> float:
    """Peak memory of the movements of a video shown so many times, in a process of its own."""
    code = f"""
import resource
from pathlib import Path
import numpy as np
from painseq.faces import FaceMesh
from painseq.faces.movements import movement_parts
from painseq.video import open_video
from painseq.video.writing import write_video
assets, times = Path({str(assets)!r}), {times}
weights = assets / "weights"
mesh = FaceMesh(
    str(weights / "face_mesh" / "face_landmarker.task"),
    str(weights / "detectors" / "face_detection_yunet_2023mar.onnx"),
)
video = Path({tempfile.gettempdir()!r}) / f"painseq_face_mesh_{{times}}.mp4"
if not video.is_file():
    with open_video(assets / "videos" / "single_face.mp4", "pyav") as opened:
        images = opened.frames(np.arange(72))
    write_video(video, (image for _ in range(times) for image in images), 30)
    raise SystemExit
for _ in movement_parts(video, mesh):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    (Path(tempfile.gettempdir()) / f"painseq_face_mesh_{times}.mp4").unlink()
    return float(done.stdout)


def measured_here(assets: Path) -> dict[str, object]:
    """What is measured with the OpenCV that can be imported."""
    import cv2

    found = {video: agreement(assets, video) for video in VIDEOS}
    for video, values in found.items():
        for name, limit in LIMITS.items():
            if not values[name] < limit:
                raise SystemExit(f"OpenCV {cv2.__version__}, {video}: {name} is off by {values[name]:.3f}.")
    return {"version": cv2.__version__, "agreement": found, "ms": speed(assets)}


def measured_with(version: str, arguments: list[str]) -> dict[str, object]:
    """The same with another version, installed into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        install = ["pip", "install", "--quiet", "--no-deps", "--target", folder, f"opencv-python-headless=={version}"]
        subprocess.run([sys.executable, "-m", *install], check=True)
        environment = {**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, *arguments, "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        result: dict[str, object] = json.loads(done.stdout)
        return result


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    lines = ["| OpenCV | " + " | ".join(VIDEOS) + " | CPU ms a followed frame |", "|---|" + "---|" * (len(VIDEOS) + 1)]
    for row in rows:
        cells = [
            f"{row['agreement'][video]['px']:.2f} px, {row['agreement'][video]['coefficient']:.3f}" for video in VIDEOS
        ]
        lines.append(f"| {row['version']} | " + " | ".join(cells) + f" | {row['ms']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and, if asked to, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True, help="folder of real videos, models and known values")
    parser.add_argument("--versions", nargs="*", default=[], help="versions of OpenCV to install and measure")
    parser.add_argument("--write", action="store_true", help="record the table in benchmarks/RESULTS.md")
    parser.add_argument("--json", action="store_true", help="print what the installed version gives, as JSON")
    args = parser.parse_args()
    assets = args.assets.resolve()
    if args.json:
        print(json.dumps(measured_here(assets)))
        return
    arguments = ["--assets", str(assets)]
    rows = [measured_with(version, arguments) for version in args.versions] or [measured_here(assets)]
    short, long = peak_mb(assets, 3), peak_mb(assets, 30)
    goals = f"Goals: {LIMITS['px']} px, {LIMITS['coefficient']}, {GOAL_MS} ms on one core."
    memory = f"{short:.0f} MB for 216 frames, {long:.0f} MB for 2,160 ({long / short:.2f} times)."
    text = f"{machine()}\n\n{table(rows)}\n\n{goals} Peak memory of the movements: {memory}"
    print(text)
    if args.write:
        write_between(RESULTS, "face_mesh", text)


if __name__ == "__main__":
    main()
