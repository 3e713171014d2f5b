"""Whole runs of the ladder, stage by stage: the demo (one seed, 30 minutes) and the study (several seeds, hours)."""
