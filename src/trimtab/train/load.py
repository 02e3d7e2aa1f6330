"""Packaged models back in memory: only in worker processes, and code-running formats only when granted."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from trimtab.core.digest import digest_bytes
from trimtab.core.errors import Corrupt, Refused, StepFailed
from trimtab.core.nouns import Data
from trimtab.core.optional import need

CODE_RUNNING = frozenset({"pickle"})
Columns = Mapping[str, Sequence[Any]]


class Scorer(Protocol):
    """Answers requests."""

    def predict(self, columns: Columns) -> Data:
        """Return ``{"predictions": [...], "scores": [...] | None}``, one of each for each row.

        Predictions are plain values: numbers of a regression, classes as the label column writes them. Scores
        are probabilities of the positive class (binary), lists in the order of the classes (multiclass), or
        the numbers themselves (regression).

        Raises:
            StepFailed: the model's answer has the wrong shape or holds what is no answer.
        """
        ...


def load_model(files: Mapping[str, Path], meta: Mapping[str, Any], *, granted: bool) -> Scorer:
    """Return a packaged model.

    Args:
        files: the package's files: ``model``.
        meta: the version's meta.
        granted: its digest is trusted to run code.

    Raises:
        Refused: the format runs code and nobody granted it.
        Corrupt: the file is not the one that was packaged.
    """
    if meta["format"] in CODE_RUNNING and not granted:
        raise Refused(
            f"a {meta['format']} file runs code when it is read, and its digest is not granted",
            fix="make the model by a run of this project; such files are granted by their run",
        )
    content = files["model"].read_bytes()
    wanted = meta.get("files", {}).get("model")
    # A grant is for a digest, so it is the bytes that are about to be read which must have it.
    if wanted is not None and digest_bytes(content) != wanted:
        raise Corrupt(
            "the model file has other content than was packaged", where=wanted, fix="restore it, or train again"
        )
    if meta["format"] == "skops":
        model = need("skops.io").loads(content, trusted=list(meta["trusted"]))
    else:
        model = pickle.loads(content)  # noqa: S301  (granted on its digest, in a worker)
    return wrap(model, meta)


def wrap(model: Any, meta: Mapping[str, Any]) -> Scorer:
    """Return a scorer around a model that is in memory.

    Args:
        model: an estimator, or a Predictor.
        meta: task, classes, positive, signature, and what ``probe`` found out: container, missing_text, answer.
    """
    return _Own(model, meta) if meta["container"] == "columns" else _Estimator(model, meta)


class _Estimator:
    """An estimator, fed with what it was fitted on."""

    def __init__(self, model: Any, meta: Mapping[str, Any]) -> None:
        self._model = model
        inputs = meta["signature"]["inputs"]
        self._first = inputs[0]["name"]
        self._frame = frame_maker(meta["container"], inputs, meta.get("missing_text", "none"))
        self._answer = meta["answer"]
        self._binary = meta["task"] == "binary"
        if self._answer != "number":
            self._match(meta["classes"], meta["positive"])

    def _match(self, classes: Sequence[Any], positive: Any) -> None:
        """Find each of the label's classes among the model's; equal ones (1 and True) are one."""
        own = [_plain(one) for one in getattr(self._model, "classes_", classes)]
        named = {one: one for one in classes}
        strange = [one for one in own if one not in named]
        if strange:
            raise StepFailed(
                f"the model knows the class {strange[0]!r}, and the label's classes are {list(classes)}",
                fix="fit on the label column as it is",
            )
        self._classes = [named[one] for one in own]
        self._named = named
        places = {one: place for place, one in enumerate(self._classes)}
        self._places = [places.get(one) for one in classes]
        self._positive = places.get(positive)
        if self._binary and self._positive is None:
            raise StepFailed(f"the model never saw the class {positive!r}", fix="train on rows of both classes")

    def predict(self, columns: Columns) -> Data:
        rows, frame = len(columns[self._first]), self._frame(columns)
        if self._answer == "number":
            made = _numbers(plain_list(self._model.predict(frame), rows))
            return {"predictions": made, "scores": made}
        if self._answer == "label":
            return {"predictions": self._labels(frame, rows), "scores": None}
        chances = self._model.predict_proba(frame)
        _shape(getattr(chances, "shape", None), rows, len(self._classes))
        if self._answer == "both":
            predictions = self._labels(frame, rows)
        else:
            predictions = [self._classes[place] for place in chances.argmax(axis=1)]
        if self._binary:
            return {"predictions": predictions, "scores": chances[:, self._positive].tolist()}
        listed = chances.tolist()
        if self._places != list(range(len(self._classes))):
            # A class that the training rows lack has no column; nothing was ever given to it.
            listed = [[0.0 if place is None else row[place] for place in self._places] for row in listed]
        return {"predictions": predictions, "scores": listed}

    def _labels(self, frame: Any, rows: int) -> list[Any]:
        made = plain_list(self._model.predict(frame), rows)
        return [_class(value, self._named) for value in made]


class _Own:
    """A ``tt.Predictor``."""

    def __init__(self, model: Any, meta: Mapping[str, Any]) -> None:
        self._model = model
        task = meta["task"]
        self._answer = meta.get("answer") or {"regression": "number", "binary": "probability"}.get(task, "label")
        classes = list(meta.get("classes") or ())
        self._named = {one: one for one in classes}
        self._positive = meta.get("positive")
        self._other = next((one for one in classes if one != self._positive), None)

    def predict(self, columns: Columns) -> Data:
        made = plain_list(self._model.predict(columns), len(next(iter(columns.values()))))
        if self._answer == "number":
            return {"predictions": _numbers(made), "scores": made}
        if self._answer == "label":
            return {"predictions": [_class(value, self._named) for value in made], "scores": None}
        for row, value in enumerate(made):
            if not is_chance(value):
                raise StepFailed(
                    f"the model answered {value!r} for row {row}, which is no probability",
                    fix="answer with numbers between 0 and 1, the probability of the positive class",
                )
        labels = [self._positive if value >= 0.5 else self._other for value in made]
        return {"predictions": labels, "scores": [float(value) for value in made]}


def frame_maker(container: str, inputs: Sequence[Mapping[str, Any]], missing_text: str) -> Callable[[Columns], Any]:
    """Return a function that puts request columns into what an estimator takes.

    Args:
        container: ``numpy`` (a float matrix where all inputs are numbers, else one of objects), ``polars`` or
            ``pandas``.
        inputs: of the signature.
        missing_text: what a missing text is in an object array: ``none`` (as Polars has it) or ``nan`` (pandas).
    """
    kinds = {spec["name"]: spec["type"] for spec in inputs}
    if container == "polars":
        return _polars_maker(kinds)
    if container == "pandas":
        return _pandas_maker(kinds)
    np: Any = need("numpy")
    names = list(kinds)
    if "string" not in kinds.values():
        return lambda columns: np.array([columns[name] for name in names], dtype="float64").T
    nan = {name for name, kind in kinds.items() if kind != "string" or missing_text == "nan"}

    def objects(columns: Columns) -> Any:
        filled = (_nan_for_none(columns[name]) if name in nan else columns[name] for name in names)
        return np.array(list(filled), dtype=object).T

    return objects


def _nan_for_none(values: Sequence[Any]) -> Sequence[Any]:
    return [float("nan") if value is None else value for value in values] if None in values else values


def _polars_maker(kinds: Mapping[str, str]) -> Callable[[Columns], Any]:
    pl: Any = need("polars")
    types = {"number": pl.Float64, "integer": pl.Int64, "string": pl.String, "boolean": pl.Boolean}
    # Types are said and not inferred: a single row may hold nothing but nulls.
    wanted = {name: types[kind] for name, kind in kinds.items()}
    return lambda columns: pl.DataFrame([pl.Series(name, columns[name], dtype=kind) for name, kind in wanted.items()])


def _pandas_maker(kinds: Mapping[str, str]) -> Callable[[Columns], Any]:
    np, pd = need("numpy"), need("pandas")

    def column(name: str, values: Sequence[Any]) -> Any:
        if kinds[name] in ("number", "integer"):
            return np.array(values, dtype="float64")
        if kinds[name] == "string":
            return pd.array(values, dtype="str")
        return np.array(values, dtype=object if None in values else bool)

    return lambda columns: pd.DataFrame({name: column(name, columns[name]) for name in kinds})


def plain_list(values: Any, rows: int) -> list[Any]:
    """Return predictions as a list of plain values.

    Raises:
        StepFailed: there are not as many as rows, or they are not one value for each row.
    """
    shape = getattr(values, "shape", None)
    if shape is not None:
        _shape(shape, rows)
    try:
        listed = values.tolist() if hasattr(values, "tolist") else list(values)
    except TypeError as error:
        raise StepFailed(
            f"the model returned {type(values).__name__}, not one prediction for each row",
            fix="return a list or an array as long as the request",
        ) from error
    _shape((len(listed),), rows)
    return [_plain(value) for value in listed]


def is_chance(value: Any) -> bool:
    """Say whether a value is a number between 0 and 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _numbers(values: list[Any]) -> list[Any]:
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise StepFailed(
                f"the model answered {value!r} for row {row}, which is no number", fix="answer with numbers"
            )
    return values


def _class(value: Any, named: Mapping[Any, Any]) -> Any:
    try:
        return named[value]
    except (KeyError, TypeError) as error:
        raise StepFailed(
            f"the model answered {value!r}, which is no class of the label: {list(named)}",
            fix="answer with the label's own values",
        ) from error


def _shape(shape: Any, rows: int, columns: int = 0) -> None:
    """Check the shape of an answer: a value for each row, or with ``columns`` that many for each row."""
    wanted = (rows, columns) if columns else (rows,)
    if shape is None or tuple(shape) != wanted:
        asked = f"{rows} rows" + (f" x {columns} classes" if columns else "")
        got = "nothing that has one" if not shape else " x ".join(str(size) for size in shape)
        raise StepFailed(
            f"the model's prediction has the wrong shape: {asked} expected, got {got}",
            fix="return one prediction for each row, in their order",
        )


def _plain(value: Any) -> Any:
    number = getattr(value, "item", None)
    return number() if callable(number) else value
