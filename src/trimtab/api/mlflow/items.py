"""The lists in requests: metrics, params, tags, datasets and models, each checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from trimtab.api.mlflow import limits
from trimtab.api.mlflow.wire import MlflowError, as_number, as_whole, invalid
from trimtab.core.nouns import Data
from trimtab.store.datasets import Dataset, Input
from trimtab.store.models import ModelMetric
from trimtab.store.points import Point

_PARTS = (
    ("name", limits.DATASET_NAME),
    ("digest", limits.DATASET_DIGEST),
    ("source_type", limits.DATASET_NAME),
    ("source", limits.DATASET_SOURCE),
)
_MORE = (("schema", limits.DATASET_SCHEMA), ("profile", limits.DATASET_PROFILE))


class Measured(Struct, frozen=True, kw_only=True):
    """A value of a metric, and the model and data that it speaks of, if any."""

    point: Point
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""

    def of_model(self, run_id: str) -> ModelMetric:
        """Return it as a value of its model."""
        return ModelMetric(
            run_id=run_id, point=self.point, dataset_name=self.dataset_name, dataset_digest=self.dataset_digest
        )


def measured_from(items: Sequence[Any], path: str) -> list[Measured]:
    """Return the metrics in a request's list, or the one that a whole request is.

    Raises:
        MlflowError: a name, value, time or step is none.
    """
    found = []
    for index, item in enumerate(items):
        place = f"{path}[{index}]" if path else ""
        one = entry(item, place)
        more: dict[str, str] = {}
        for name in ("model_id", "dataset_name", "dataset_digest"):
            value = one.get(name)
            if value is not None and not isinstance(value, str):
                raise invalid(f"{place}.{name}".lstrip("."), value)
            more[name] = value or ""
        found.append(Measured(point=_point(one, f"{place}." if place else ""), **more))
    return found


def entry(item: Any, path: str) -> Data:
    """Return an item of a list, which has to be an object.

    Raises:
        MlflowError: it is none.
    """
    if not isinstance(item, dict):
        raise invalid(path, item)
    return item


def _point(item: Data, path: str) -> Point:
    """Return the point that an entry of a batch, or a whole request, stands for."""
    for name in ("key", "value", "timestamp"):
        if item.get(name) is None or item.get(name) == "":
            raise MlflowError(f"Missing value for required parameter '{path}{name}'.")
    name = limits.check_name(item["key"], f"{path}name")
    limits.check_length("Metric name", limits.KEY, name)
    try:
        value = as_number(item["value"])
    except (TypeError, ValueError, OverflowError):
        reason = f"(timestamp={item['timestamp']}). Please specify value as a valid double (64-bit floating point)"
        raise invalid(f"{path}value", item["value"], reason) from None
    about = f"metric '{name}' (value={value})."
    stamp = _whole(
        item["timestamp"], f"{path}timestamp", f"{about} Timestamp must be a nonnegative long (64-bit integer) "
    )
    if not 0 <= stamp < 1 << 53:
        raise invalid(f"{path}timestamp", stamp, f"{about} Timestamp must be a nonnegative long (64-bit integer) ")
    step = _whole(item.get("step") or 0, f"{path}step", f"{about} Step must be a valid long (64-bit integer).")
    return Point(name, value, step, stamp * 1000)


def _whole(value: Any, path: str, reason: str) -> int:
    try:
        return as_whole(value)
    except (TypeError, ValueError, OverflowError):
        raise invalid(path, value, reason) from None


def params_from(items: Sequence[Any], path: str) -> dict[str, str]:
    """Return the params in a request's list.

    Raises:
        MlflowError: a name or value is none, or too long.
    """
    found = {}
    for index, item in enumerate(items):
        place = f"{path}[{index}]." if path else ""
        one = entry(item, place)
        if one.get("key") in (None, ""):
            raise MlflowError(f"Missing value for required parameter '{place}key'.")
        name, value = limits.check_name(one["key"], f"{place}key"), one.get("value", "")
        if not isinstance(value, str):
            raise invalid(f"{place}value", value)
        limits.check_length("Param key", limits.KEY, name)
        found[name] = limits.check_length("Param value", limits.PARAM, value)
    return found


def tags_from(items: Sequence[Any], path: str, most: int) -> dict[str, str]:
    """Return the tags in a request's list; errors as for params."""
    found = {}
    for index, item in enumerate(items):
        place = f"{path}[{index}]." if path else ""
        one = entry(item, place)
        name, value = limits.check_name(one.get("key"), f"{place}key"), one.get("value", "")
        if not isinstance(value, str):
            raise invalid(f"{place}value", value)
        limits.check_length(f"{place}key", limits.KEY, name)
        found[name] = limits.check_length(f"{place}value", most, value)
    return found


def inputs_from(items: Sequence[Any]) -> list[Input]:
    """Return the datasets in a request.

    Raises:
        MlflowError: one has no name, digest, source or source type, or something that is no text or too long.
    """
    if len(items) > limits.MOST_DATASETS:
        raise MlflowError(f"A request can log at most {limits.MOST_DATASETS} datasets. Got {len(items)}.")
    return [_input(item, f"datasets[{index}]") for index, item in enumerate(items)]


def _input(item: Any, path: str) -> Input:
    if not isinstance(item, dict):
        raise invalid(path, item)
    given = item.get("dataset")
    if not isinstance(given, dict):
        raise MlflowError("Dataset cannot be None")
    found: Data = {}
    for name, most in (*_PARTS, *_MORE):
        value = given.get(name)
        if value is None and (name, most) in _PARTS:
            raise MlflowError(f"Dataset {name} cannot be None")
        if value is not None:
            if not isinstance(value, str):
                raise invalid(f"{path}.dataset.{name}", value)
            found[name] = limits.check_length(name, most, value)
    return Input(dataset=Dataset(**found), tags=_tags(item.get("tags") or [], f"{path}.tags"))


def _tags(items: Any, path: str) -> dict[str, str]:
    if not isinstance(items, list):
        raise invalid(path, items)
    found: dict[str, str] = {}
    for index, item in enumerate(items):
        key, value = (item.get("key"), item.get("value")) if isinstance(item, dict) else (None, None)
        if not isinstance(key, str) or not isinstance(value, str):
            raise invalid(f"{path}[{index}]", item)
        limits.check_length("key", limits.INPUT_KEY, key)
        found[key] = limits.check_length("value", limits.INPUT_VALUE, value)
    return found


def models_from(items: Sequence[Any]) -> list[tuple[str, int]]:
    """Return the logged models in a request, each with a step.

    Raises:
        MlflowError: one has no id.
    """
    found = []
    for index, item in enumerate(items):
        ident = item.get("model_id") if isinstance(item, dict) else None
        if not isinstance(ident, str) or not ident:
            raise MlflowError(f"Missing value for required parameter 'models[{index}].model_id'.")
        try:
            step = as_whole(item.get("step") or 0)
        except (TypeError, ValueError, OverflowError):
            raise invalid(f"models[{index}].step", item["step"]) from None
        found.append((ident, step))
    return found
