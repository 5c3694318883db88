from painseq.heads.attention_mil import AttentionMIL
from painseq.heads.bilstm_attention import BiLSTMAttention
from painseq.heads.deep_adaboost import DeepAdaBoost
from painseq.heads.frame_ann import FrameANN
from painseq.heads.head import Head
from painseq.heads.linear import LinearFrames
from painseq.heads.linear_probe import LinearProbe
from painseq.heads.lstm import LSTM
from painseq.heads.stacked_lstm import StackedLSTM
from painseq.heads.temporal_conv_net import TemporalConvNet
from painseq.heads.trees import AdaBoost, GradientBoosting, HistogramBoosting, RandomForest
from painseq.heads.two_stream import TwoStream
from painseq.heads.vivit import ViViT

__all__ = [
    "LSTM",
    "AdaBoost",
    "AttentionMIL",
    "BiLSTMAttention",
    "DeepAdaBoost",
    "FrameANN",
    "GradientBoosting",
    "Head",
    "HistogramBoosting",
    "LinearFrames",
    "LinearProbe",
    "RandomForest",
    "StackedLSTM",
    "TemporalConvNet",
    "TwoStream",
    "ViViT",
]
