from painseq.report.page import Figure, Report, write_report

__all__ = ["Figure", "Report", "write_report"]
