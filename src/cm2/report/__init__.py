"""The report: one self-contained, safe HTML file that shows what a run did, in numbers and in dialogues."""

from cm2.report.build import ReportConfig, Summary, write_report

__all__ = ["ReportConfig", "Summary", "write_report"]
