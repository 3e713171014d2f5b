"""Assure: what to do with verdicts about agents that run: report, gate, compare, audit, monitor, export."""
