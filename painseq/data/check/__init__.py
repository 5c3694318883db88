"""Check of a data set on disk against published counts, and for consistency."""

from painseq.data.check.check import check_data, read_faceless
from painseq.data.check.report import TOPICS, DataCheck, Finding, Spread

__all__ = ["TOPICS", "DataCheck", "Finding", "Spread", "check_data", "read_faceless"]
