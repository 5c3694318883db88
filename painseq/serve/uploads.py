"""A video or a picture that was sent: looked at with suspicion, then predicted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from painseq.errors import CLIP_FAILURES, PainseqError, reason_of
from painseq.model.predictor import Predictor
from painseq.serve.options import ServeOptions
from painseq.video import open_video, probe_duration_s
from painseq.video.images import UNREADABLE_IMAGE

NAME = "upload"
"""What a file is called in results, whatever its sender calls it."""
MAX_FPS = 120.0
MAX_SCANS = 64
"""Of a JPEG: each costs a pass over the picture, and a small file can hold very many."""
IMAGES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n\x1a\n": ".png", b"BM": ".bmp"}
_FORMATS = {".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}


def keep(sent: IO[bytes], folder: Path, options: ServeOptions) -> Path:
    """Copy what was sent into a folder, under a name of our own, and check what it is before anything decodes it.

    Returns:
        A video, or a folder with one picture.

    Raises:
        PainseqError: neither, damaged, or larger or longer than allowed.
    """
    suffix = kind_of(sent.read(16))
    sent.seek(0)
    if suffix in _FORMATS:
        data = sent.read()
        check_picture(data, options.max_pixels, _FORMATS[suffix])
        path = folder / NAME / f"picture{suffix}"
        path.parent.mkdir()
        with path.open("xb") as file:
            file.write(data)
        return path.parent
    path = folder / f"{NAME}{suffix}"
    with path.open("xb") as file:
        shutil.copyfileobj(sent, file, 1 << 20)
    _check_video(path, options)
    return path


def kind_of(head: bytes) -> str:
    """Return the suffix that fits the first bytes of a file.

    Formats that can name other files, such as playlists, are not among those that are taken.

    Raises:
        PainseqError: another format.
    """
    for start, suffix in IMAGES.items():
        if head.startswith(start):
            return suffix
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"AVI "):
        return ".webp" if head[8:12] == b"WEBP" else ".avi"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return ".mp4"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return ".mkv"
    raise PainseqError("The file is neither a video (MP4, MOV, MKV, WebM, AVI) nor a picture (JPEG, PNG, BMP, WebP).")


def check_picture(data: bytes, max_pixels: int, kind: str) -> None:
    """Look at the head of a picture, without decoding it.

    Raises:
        PainseqError: no picture of this kind, or one with too many pixels or passes.
    """
    try:
        with Image.open(BytesIO(data), formats=(kind,)) as image:
            width, height = image.size
    except UNREADABLE_IMAGE as error:
        raise PainseqError(f"The picture cannot be read as {kind}.") from error
    if width * height > max_pixels:
        raise PainseqError(f"The picture has {width} x {height} pixels; at most {max_pixels} are taken.")
    if kind == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
        raise PainseqError(f"The JPEG needs more than {MAX_SCANS} passes.")


def decode_jpeg(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a streamed picture into (H, W, 3) uint8 RGB.

    Raises:
        PainseqError: no JPEG, a truncated one, or one with too many pixels or passes.
    """
    check_picture(data, max_pixels, "JPEG")
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except UNREADABLE_IMAGE as error:
        raise PainseqError("The picture is truncated or damaged.") from error


def predict_upload(models: Mapping[str, Predictor], path: Path, options: ServeOptions) -> dict[str, Any]:
    """Predict what `keep` returned.

    Returns:
        Name -> what `painseq predict --json` prints of the model, or the error of the model.

    Raises:
        PainseqError: no model could predict it.
    """
    told: dict[str, Any] = {}
    errors = []
    for name, model in models.items():
        try:
            prediction = model.predict(path, end_s=options.max_video_s, image_fps=1.0 if path.is_dir() else None)
        except CLIP_FAILURES as error:
            errors.append(reason_of(error).replace(str(path.absolute()), "The upload"))
            told[name] = {"error": errors[-1]}
        else:
            prediction = replace(prediction, video=NAME)
            if prediction.normalised_by:
                prediction = replace(prediction, normalised_by=(NAME,))
            told[name] = [prediction.to_dict()]
    if len(errors) == len(models):
        raise PainseqError(errors[0])
    return told


def _check_video(path: Path, options: ServeOptions) -> None:
    try:
        duration_s = probe_duration_s(path)
        if duration_s <= options.max_video_s:
            with open_video(path) as video:
                duration_s, frames, (width, height) = video.duration_s, len(video), video.size
    except CLIP_FAILURES as error:
        raise PainseqError(reason_of(error).replace(str(path.absolute()), "The upload")) from error
    if duration_s > options.max_video_s:
        raise PainseqError(f"The video lasts {duration_s:.0f} s; at most {options.max_video_s:g} s are taken.")
    if frames > MAX_FPS * options.max_video_s:
        raise PainseqError(f"The video has {frames} frames; at most {MAX_FPS * options.max_video_s:g} are taken.")
    if width * height > options.max_pixels:
        raise PainseqError(f"The video has {width} x {height} pixels; at most {options.max_pixels} are taken.")
