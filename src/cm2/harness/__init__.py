"""Benchmarks by their own harnesses: BFCL-V4, tau2-bench and ToolSandbox, each in an environment of its own."""
