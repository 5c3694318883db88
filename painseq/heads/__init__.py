from painseq.heads.frame_ann import FrameANN
from painseq.heads.head import Head
from painseq.heads.linear import LinearFrames
from painseq.heads.lstm import LSTM

__all__ = ["LSTM", "FrameANN", "Head", "LinearFrames"]
