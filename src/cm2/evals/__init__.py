"""Evaluation of checkpoints: on held-out tasks (here), and through the benchmarks' own harnesses."""
