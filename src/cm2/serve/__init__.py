"""Serve: a checkpoint behind an OpenAI-compatible endpoint, read and written as in training.

One front (`app`) renders requests by the template that training used, to ids, and reads the answer's text by the same
parser; who turns ids into ids is a `backend`: our own decoder, or vLLM or SGLang in a process beside it.
"""

from cm2.serve.child import Served, serving
from cm2.serve.config import ServeConfig

__all__ = ["ServeConfig", "Served", "serving"]
