"""Imports: the logs of agents as other tools write them, read into rows of dialogues."""

from cm2.imports.detect import FORMATS, detect
from cm2.imports.run import ImportConfig, import_logs
from cm2.imports.summary import Summary

__all__ = ["FORMATS", "ImportConfig", "Summary", "detect", "import_logs"]
