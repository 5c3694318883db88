"""Read video files and folders of images, by timestamps and independent of the decoder; write videos."""

from painseq.video.container import (
    SHORT_DIGEST,
    VIDEO_SUFFIXES,
    Timeline,
    bare_name,
    probe_duration_s,
    read_timeline,
    video_digest,
)
from painseq.video.reading import open_video, read_chunks
from painseq.video.sampling import frame_indices
from painseq.video.video import Video
from painseq.video.writing import write_video

__all__ = [
    "SHORT_DIGEST",
    "VIDEO_SUFFIXES",
    "Timeline",
    "Video",
    "bare_name",
    "frame_indices",
    "open_video",
    "probe_duration_s",
    "read_chunks",
    "read_timeline",
    "video_digest",
    "write_video",
]
