"""Live: predict a camera or another stream, tell its state, notify, and log. Research software, no medical device."""

from painseq.live.predictor import Counts, LivePredictor, LiveSettings
from painseq.live.reader import Reader
from painseq.live.reading import Reading, State
from painseq.live.skipping import Skipping

__all__ = ["Counts", "LivePredictor", "LiveSettings", "Reader", "Reading", "Skipping", "State"]
