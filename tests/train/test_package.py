"""Packing models: skops where it can, pickle under a grant where it cannot, equal bytes for equal fits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import trimtab as tt
from tests.train.conftest import FEATURES, pipeline, rows
from tests.train.models import Fixed, Tally
from trimtab.core.errors import StepFailed
from trimtab.train.package import dump

OWN = frozenset({"tests.train.models", "tests.train.test_package"})
X = rows(5).select("x0", "id").to_numpy()
Y = rows(5)["y"].to_numpy()

FIT = """
import sys, numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from tests.train.models import Tally
from trimtab.core.digest import digest_bytes
from trimtab.train.package import dump
padding = [object() for _ in range(int(sys.argv[1]))]
x = np.random.Generator(np.random.PCG64(0)).normal(size=(500, 4))
trees = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(x, x[:, 0] > 0)
own = Tally({name: 0.5 for name in "abcdef"}, 0.25)
print(digest_bytes(dump(trees, frozenset())[0]), digest_bytes(dump(own, frozenset({"tests.train.models"}))[0]))
"""


@pytest.mark.parametrize(
    ("model", "trusted"),
    [
        (LogisticRegression(), []),
        (
            HistGradientBoostingClassifier(max_iter=3),
            ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"],
        ),
        (make_pipeline(SelectKBest(k=1), LogisticRegression()), None),
        (make_pipeline(FunctionTransformer(np.arctan), LogisticRegression()), []),
    ],
)
def test_estimators_are_kept_by_skops(model: Any, trusted: list[str] | None) -> None:
    """Their types are trusted one by one, by name, and they answer the same afterwards."""
    content, form = dump(model.fit(X, Y), frozenset())
    assert form["format"] == "skops" and form["note"] == ""
    assert trusted is None or form["trusted"] == trusted
    again = skops.io.loads(content, trusted=form["trusted"])
    assert (again.predict_proba(X) == model.predict_proba(X)).all()


def _steep(values: Any) -> Any:
    return values * 2


@pytest.mark.parametrize("function", [_steep, eval, np.load])
def test_what_could_run_anything_is_not_trusted_by_its_library(function: Any) -> None:
    """Functions of one's own, of Python and of numpy are no classes that only compute: such a model is a pickle."""
    model = make_pipeline(FunctionTransformer(np.arctan), LogisticRegression()).fit(X, Y)
    model.steps[0][1].func = function
    _, form = dump(model, OWN)
    assert form["format"] == "pickle" and form["trusted"] == []
    assert form["note"].startswith(("skops does not know", "skops cannot keep it"))


def test_equal_fits_are_equal_bytes_in_any_process() -> None:
    """Neither the time of day, nor addresses, nor the hash seed of the process show in a package."""
    found = set()
    root = Path(__file__).parents[2]
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}:{root / 'src'}"}
        done = subprocess.run(
            [sys.executable, "-c", FIT, seed * 3], env=env, capture_output=True, text=True, check=True, cwd=root
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_a_package_holds_no_time_and_no_address() -> None:
    """Members are in order, dated alike and counted."""
    content, _ = dump(pipeline().fit(rows(5).select(FEATURES), Y), frozenset())
    with zipfile.ZipFile(BytesIO(content)) as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}
        names = archive.namelist()
    assert names == sorted(names) and all(len(name) <= len("schema.json") for name in names)


def test_shared_parts_stay_shared() -> None:
    """An object that a model holds twice is one object again."""
    model = make_pipeline(FunctionTransformer(np.arctan), LogisticRegression()).fit(X, Y)
    model.steps[0][1].table_ = model.steps[1][1].table_ = np.arange(5.0)
    model.steps[0][1].other_ = np.arange(5.0)
    content, form = dump(model, frozenset())
    again = skops.io.loads(content, trusted=form["trusted"])
    assert again.steps[0][1].table_ is again.steps[1][1].table_
    assert again.steps[0][1].other_ is not again.steps[0][1].table_


def test_a_predictor_of_the_project_is_a_pickle() -> None:
    """A Predictor runs code when it is read, and the note says that it is one."""
    content, form = dump(Tally({"a": 0.5}, 0.1), OWN)
    assert form == {"format": "pickle", "trusted": [], "note": "a tt.Predictor is kept by pickle"}
    assert b"tests.train.models" in content


def test_a_class_that_the_snapshot_lacks_is_refused() -> None:
    """A Predictor of another package, of a script, or of inside a function cannot be read again."""
    with pytest.raises(StepFailed, match="not a module of the project"):
        dump(Fixed(1), frozenset({"flights.model"}))

    class Inside(tt.Predictor):
        pass

    with pytest.raises(StepFailed, match="cannot be packed"):
        dump(Inside(), OWN)
    with pytest.raises(StepFailed, match="cannot be packed"):
        dump(Fixed(threading.Lock()), OWN)
