"""Crop one face out of a video: locators, tracks, crops."""

from painseq.faces.crops import CropChunk, FaceCrops
from painseq.faces.face_alignment import FaceAlignment
from painseq.faces.face_mesh import FaceMesh
from painseq.faces.follower import FaceFollower, FollowedFace
from painseq.faces.full_frame import FullFrame
from painseq.faces.locator import Face, Locator
from painseq.faces.sidecar import Sidecar
from painseq.faces.track import FaceTrack, track
from painseq.faces.tracks import StoredTrack, TrackFolder
from painseq.faces.yunet import YuNet

__all__ = [
    "CropChunk",
    "Face",
    "FaceAlignment",
    "FaceCrops",
    "FaceFollower",
    "FaceMesh",
    "FaceTrack",
    "FollowedFace",
    "FullFrame",
    "Locator",
    "Sidecar",
    "StoredTrack",
    "TrackFolder",
    "YuNet",
    "track",
]
