"""Video files: frames by their timestamps, whichever library decodes them."""

from painseq.video.container import Timeline, probe_duration_s, read_timeline, video_digest
from painseq.video.reading import Video, open_video, read_chunks
from painseq.video.sampling import frame_indices
from painseq.video.writing import write_video

__all__ = [
    "Timeline",
    "Video",
    "frame_indices",
    "open_video",
    "probe_duration_s",
    "read_chunks",
    "read_timeline",
    "video_digest",
    "write_video",
]
