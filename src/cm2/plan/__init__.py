"""What a recipe needs, before it is started: memory, tokens, calls, hours; `cm2 plan`."""

from cm2.plan.constants import TABLE, Constant, Constants
from cm2.plan.devices import DEVICES, Device
from cm2.plan.models import KNOWN, Dims, dims_of
from cm2.plan.plan import Plan, make_plan
from cm2.plan.shape import Shape

__all__ = [
    "DEVICES",
    "KNOWN",
    "TABLE",
    "Constant",
    "Constants",
    "Device",
    "Dims",
    "Plan",
    "Shape",
    "dims_of",
    "make_plan",
]
