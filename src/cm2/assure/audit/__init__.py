"""Audit: people look at a sample of a judge's verdicts, and so its errors, and the true pass rates, are measured.

    draw (sample.py) ──▶ Book (book.py: one database) ──▶ review page (server.py) ──▶ measure (measure.py) ──▶ report

The sample is stratified and every case keeps the probability with which it was drawn, so that a few hundred reviews
speak about all verdicts. Only the database and the page need the extra `review`.
"""

from cm2.assure.audit.sample import SampleConfig, draw

__all__ = ["SampleConfig", "draw"]
