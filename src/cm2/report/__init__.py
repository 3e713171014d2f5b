"""The reports: safe pages that show, in numbers and in dialogues, what a run did and what an agent's logs miss."""

from cm2.report.build import ReportConfig, Summary, write_report
from cm2.report.judged import DiagnosisConfig, Report, write_diagnosis

__all__ = ["DiagnosisConfig", "Report", "ReportConfig", "Summary", "write_diagnosis", "write_report"]
