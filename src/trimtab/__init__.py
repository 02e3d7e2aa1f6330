"""Trimtab operates AI workloads end to end; this is the front door for project files.

>>> import trimtab as tt
>>> from trimtab import check as ck
"""

from trimtab import check
from trimtab.core.context import log
from trimtab.core.declare import (
    Choice,
    Float,
    Int,
    blue_green,
    canary,
    endpoint,
    features,
    model,
    source,
    sql,
    table,
    when,
)
from trimtab.data.point_in_time import point_in_time
from trimtab.train.predictor import Predictor

__version__ = "0.1.0"

__all__ = [
    "Choice",
    "Float",
    "Int",
    "Predictor",
    "blue_green",
    "canary",
    "check",
    "endpoint",
    "features",
    "log",
    "model",
    "point_in_time",
    "source",
    "sql",
    "table",
    "when",
]
