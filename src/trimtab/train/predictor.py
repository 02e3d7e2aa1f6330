"""The base class for models that are not a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Predictor:
    """A model of one's own: state that pickles, and a ``predict`` over columns.

    A ``@tt.model`` function may return one. It is kept by pickle, a format that runs code when it is read;
    one made by one's own run is granted on its digest, audited, and only ever read in a worker process.
    """

    def predict(self, columns: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
        """Return one prediction for each row.

        Args:
            columns: feature name -> its values, all of one length; missing values are None.

        Returns:
            As many values as there are rows: numbers for regression, labels for classification; for a
            binary task numbers between 0 and 1 count as the probability of the positive class.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to predict")
