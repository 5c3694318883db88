from painseq.report.content import Block, Figure, Picture, Report
from painseq.report.figures import write_figures
from painseq.report.page import write_report
from painseq.report.values import value_blocks

__all__ = ["Block", "Figure", "Picture", "Report", "value_blocks", "write_figures", "write_report"]
