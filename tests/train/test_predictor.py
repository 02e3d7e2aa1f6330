"""The base class of models of one's own."""

from __future__ import annotations

import pytest

import trimtab as tt


def test_a_predictor_must_say_how_to_predict() -> None:
    """The base class answers nothing by itself."""

    class Silent(tt.Predictor):
        pass

    with pytest.raises(NotImplementedError, match="Silent does not say how to predict"):
        Silent().predict({"x": [1.0]})
