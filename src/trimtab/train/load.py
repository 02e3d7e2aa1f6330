"""Packaged models back in memory: only in worker processes, and code-running formats only when granted."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from trimtab.core.errors import Refused, StepFailed
from trimtab.core.nouns import Data
from trimtab.core.optional import need

CODE_RUNNING = frozenset({"pickle"})


class Scorer(Protocol):
    """Answers requests."""

    def predict(self, columns: Mapping[str, Sequence[Any]]) -> Data:
        """Return ``{"predictions": [...], "scores": [...] | None}``, one of each for each row."""
        ...


def load_model(files: Mapping[str, Path], meta: Mapping[str, Any], *, granted: bool) -> Scorer:
    """Return a packaged model.

    Args:
        files: the package's files: ``model``.
        meta: the version's meta.
        granted: its digest is trusted to run code.

    Raises:
        Refused: the format runs code and nobody granted it.
    """
    if meta["format"] in CODE_RUNNING and not granted:
        raise Refused(
            f"a {meta['format']} file runs code when it is read, and its digest is not granted",
            fix="make the model by a run of this project; such files are granted by their run",
        )
    content = files["model"].read_bytes()
    if meta["format"] == "skops":
        model = need("skops.io").loads(content, trusted=list(meta["trusted"]))
    else:
        model = pickle.loads(content)  # noqa: S301  (granted on its digest, in a worker)
    return wrap(model, meta)


def wrap(model: Any, meta: Mapping[str, Any]) -> Scorer:
    """Return a scorer around a model that is in memory."""
    return _Estimator(model, meta) if meta["container"] != "columns" else _Own(model, meta)


class _Estimator:
    """A scikit-learn estimator, fed with what it was fitted on."""

    def __init__(self, model: Any, meta: Mapping[str, Any]) -> None:
        self._model = model
        self._task = meta["task"]
        self._names = [spec["name"] for spec in meta["signature"]["inputs"]]
        self._types = {spec["name"]: spec["type"] for spec in meta["signature"]["inputs"]}
        self._container = meta["container"]
        self._positive = meta.get("positive")
        self._numbers = all(kind in ("number", "integer") for kind in self._types.values())

    def predict(self, columns: Mapping[str, Sequence[Any]]) -> Data:
        rows = len(columns[self._names[0]])
        frame = self._frame(columns)
        if self._task == "regression" or not hasattr(self._model, "predict_proba"):
            made = plain_list(self._model.predict(frame), rows)
            return {"predictions": made, "scores": made if self._task == "regression" else None}
        chances = self._model.predict_proba(frame)
        _shape(getattr(chances, "shape", None), rows)
        classes = [_plain(one) for one in self._model.classes_]
        best = chances.argmax(axis=1)
        predictions = [classes[index] for index in best]
        if self._task == "binary":
            at = classes.index(self._positive)
            return {"predictions": predictions, "scores": [float(value) for value in chances[:, at]]}
        return {"predictions": predictions, "scores": [[float(value) for value in row] for row in chances]}

    def _frame(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        if self._container == "polars":
            return need("polars").DataFrame({name: columns[name] for name in self._names})
        np = need("numpy")
        if self._container == "pandas":
            data = {name: self._column(np, name, columns[name]) for name in self._names}
            return need("pandas").DataFrame(data, columns=self._names)
        if self._numbers:
            return np.array([self._column(np, name, columns[name]) for name in self._names], dtype="float64").T
        out = np.empty((len(columns[self._names[0]]), len(self._names)), dtype=object)
        for index, name in enumerate(self._names):
            out[:, index] = columns[name]
        return out

    def _column(self, np: Any, name: str, values: Sequence[Any]) -> Any:
        if self._types[name] in ("number", "integer"):
            return np.array([np.nan if value is None else value for value in values], dtype="float64")
        return np.array(list(values), dtype=object)


class _Own:
    """A ``tt.Predictor``."""

    def __init__(self, model: Any, meta: Mapping[str, Any]) -> None:
        self._model = model
        self._task = meta["task"]
        self._classes = list(meta.get("classes") or ())
        self._positive = meta.get("positive")

    def predict(self, columns: Mapping[str, Sequence[Any]]) -> Data:
        rows = len(next(iter(columns.values())))
        made = plain_list(self._model.predict(columns), rows)
        if self._task == "regression":
            return {"predictions": made, "scores": made}
        if self._task != "binary" or not all(_is_chance(value) for value in made):
            return {"predictions": made, "scores": None}
        other = next(one for one in self._classes if one != self._positive)
        labels = [self._positive if value >= 0.5 else other for value in made]
        return {"predictions": labels, "scores": [float(value) for value in made]}


def _is_chance(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def plain_list(values: Any, rows: int) -> list[Any]:
    """Return predictions as a list of plain values.

    Raises:
        StepFailed: there are not as many as rows, or they are not one value for each row.
    """
    shape = getattr(values, "shape", None)
    if shape is not None:
        _shape(shape, rows, flat=True)
    try:
        listed = values.tolist() if hasattr(values, "tolist") else list(values)
    except TypeError as error:
        raise StepFailed(
            f"the model returned {type(values).__name__}, not one prediction for each row",
            fix="return a list or an array as long as the request",
        ) from error
    _shape((len(listed),), rows, flat=True)
    return [_plain(value) for value in listed]


def _shape(shape: Any, rows: int, *, flat: bool = False) -> None:
    if not shape or shape[0] != rows or (flat and len(shape) != 1) or (not flat and len(shape) != 2):
        got = "no rows" if not shape else " x ".join(str(size) for size in shape)
        raise StepFailed(
            f"the model's prediction has the wrong shape: {rows} expected, got {got}",
            fix="return one prediction for each row, in their order",
        )


def _plain(value: Any) -> Any:
    number = getattr(value, "item", None)
    return number() if callable(number) else value
