"""Live: predict a camera or another stream, tell its state, notify, and log. Research software, no medical device."""

from painseq.live.log import LiveLog, Run, log_lines, read_log, run_of, write_table
from painseq.live.lsl import LslOutlet
from painseq.live.notify import Notification, Notifier, NotifySettings, Replay, replay
from painseq.live.predictor import Counts, LivePredictor, LiveSettings
from painseq.live.reader import Reader
from painseq.live.reading import STATES, Reading, State
from painseq.live.record import NumbersRecorder
from painseq.live.session import LiveSession, Update
from painseq.live.skipping import Skipping

__all__ = [
    "STATES",
    "Counts",
    "LiveLog",
    "LivePredictor",
    "LiveSession",
    "LiveSettings",
    "LslOutlet",
    "Notification",
    "Notifier",
    "NotifySettings",
    "NumbersRecorder",
    "Reader",
    "Reading",
    "Replay",
    "Run",
    "Skipping",
    "State",
    "Update",
    "log_lines",
    "read_log",
    "replay",
    "run_of",
    "write_table",
]
