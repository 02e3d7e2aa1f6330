"""Trimtab operates AI workloads end to end; this is the front door for project files.

>>> import trimtab as tt
>>> from trimtab import check as ck
"""

from trimtab import check
from trimtab.core.context import log
from trimtab.core.declare import Choice, Float, Int, sql
from trimtab.core.decorators import features, model, source, table
from trimtab.core.live import blue_green, canary, endpoint, when
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
