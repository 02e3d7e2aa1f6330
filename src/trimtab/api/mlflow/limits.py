"""What names and values MLflow's clients may send, and the words in which the others are refused."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Sequence

from trimtab.api.mlflow.wire import MlflowError, invalid

MOST_METRICS, MOST_PARAMS, MOST_TAGS, MOST_ENTITIES = 1000, 100, 100, 1000
MOST_BYTES = 1_000_000
KEY, PARAM, TAG = 250, 6000, 8000
EXPERIMENT_NAME, EXPERIMENT_TAG, LOCATION = 500, 5000, 2048
MOST_DATASETS, INPUT_KEY, INPUT_VALUE = 1000, 255, 500
DATASET_NAME, DATASET_DIGEST, DATASET_SOURCE, DATASET_SCHEMA = 500, 36, 65_535, 1_048_575
DATASET_PROFILE = 16_777_215
_NAME = re.compile(r"[/\w.\- :]*")
_BAD_CHARACTERS = (
    "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and"
    " slashes (/)."
)


def check_name(name: str | None, path: str) -> str:
    """Return a metric's, param's or tag's name.

    Raises:
        MlflowError: it is missing, has other characters, or would be another name as a path.
    """
    if name is None:
        raise MlflowError(f"Missing value for required parameter '{path}'.")
    if not _NAME.fullmatch(name):
        raise invalid(path, name, _BAD_CHARACTERS)
    plain = posixpath.normpath(name)
    if plain != name or plain == "." or plain.startswith(("..", "/")):
        raise invalid(
            path,
            name,
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as"
            f" such. This name would resolve to {plain!r}",
        )
    return name


def check_length(what: str, limit: int, value: str) -> str:
    """Return a text that is not longer than its limit; nothing is ever cut.

    Raises:
        MlflowError: it is longer.
    """
    if len(value) > limit:
        raise MlflowError(f"'{what}' exceeds the maximum length of {limit} characters")
    return value


def check_batch(metrics: int, params: int, tags: int) -> None:
    """Check how much a batch holds.

    Raises:
        MlflowError: it holds more than it may.
    """
    total = metrics + params + tags
    for what, most, count in (
        ("metrics", MOST_METRICS, metrics),
        ("params", MOST_PARAMS, params),
        ("tags", MOST_TAGS, tags),
        ("metrics, params, and tags", MOST_ENTITIES, total),
    ):
        if count > most:
            raise MlflowError(
                f"A batch logging request can contain at most {most} {what}. Got {count} {what}. Please split up"
                f" {what} across multiple requests and try again."
            )


def check_experiment_name(name: str) -> str:
    """Return an experiment's name.

    Raises:
        MlflowError: it is empty or too long.
    """
    if not name.strip():
        raise MlflowError(f"Invalid experiment name: '{name}'")
    return check_length("name", EXPERIMENT_NAME, name)


def check_unique(names: Sequence[str]) -> None:
    """Check that no param stands twice in a batch.

    Raises:
        MlflowError: one does.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise MlflowError(
            f"Duplicate parameter keys have been submitted: {twice}. Please ensure the request contains only one"
            " param value per param key."
        )
