"""The four questions of MLflow's pages: what is selected is answered, what is not known is told."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.api.mlflow.graphql import answer, parse
from trimtab.api.mlflow.wire import MlflowError
from trimtab.core.errors import NotFound
from trimtab.core.nouns import Data

RUN: Data = {
    "run": {
        "info": {"run_name": "one", "start_time": 1_700_000_000_000, "run_uuid": "a"},
        "data": {
            "metrics": [{"key": "m", "value": 0.5, "step": 3}, {"key": "n", "value": "NaN", "step": -1}],
            "params": [{"key": "p", "value": "NaN"}],
        },
    }
}
QUERY = """
  query GetRun($data: MlflowGetRunInput!) @component(name: "MLflow {not} a selection") {
    mlflowGetRun(input: $data) {
      __typename
      apiError { helpUrl code message }
      run {
        info { runName startTime endTime }
        data { metrics { key value step } params { key value } }
        modelVersions { name }
      }
    }
  }
"""


def _ask(query: str, resolver: Any, **more: Any) -> Data:
    return answer({"query": query, "variables": {"data": {"runId": "a"}}, **more}, {"mlflowGetRun": resolver})


def test_what_is_selected_is_answered() -> None:
    """Names are camel case, whole numbers text, what is not there null, and a metric that is no number null."""
    asked: list[Data] = []

    def resolver(given: Data) -> Data:
        asked.append(given)
        return RUN

    told = _ask(QUERY, resolver)["data"]["mlflowGetRun"]
    assert asked == [{"run_id": "a"}]
    assert told["__typename"] == "MlflowMlflowGetRun" and told["apiError"] is None
    assert told["run"]["info"] == {"runName": "one", "startTime": "1700000000000", "endTime": None}
    assert told["run"]["data"]["metrics"] == [
        {"key": "m", "value": 0.5, "step": "3"},
        {"key": "n", "value": None, "step": "-1"},
    ]
    assert told["run"]["data"]["params"] == [{"key": "p", "value": "NaN"}] and told["run"]["modelVersions"] is None


def test_what_goes_wrong_stands_in_the_field() -> None:
    """The pages look for it there."""

    def resolver(given: Data) -> Data:
        raise NotFound(f"no run {given['run_id']}")

    told = _ask(QUERY, resolver)["data"]["mlflowGetRun"]
    assert told["run"] is None
    assert told["apiError"] == {"helpUrl": None, "code": "RESOURCE_DOES_NOT_EXIST", "message": "no run a"}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "selects nothing"),
        ("query A { other { a } }", "no field 'other'"),
        ("mutation A { mlflowGetRun { run } }", "mutation is not supported"),
        ("{ mlflowGetRun { run ", "ends too early"),
        ("query A($x: Y", "ends too early"),
        ("{ mlflowGetRun { ...all } }", "is not supported in a query"),
        ("{ mlflowGetRun } { mlflowGetRun }", "more than one operation"),
        ("{ mlflowGetRun" + " { a" * 20 + " }" * 21, "deeper than"),
        ("{ a }" + " " * 30_000, "longer than"),
    ],
)
def test_what_is_not_understood_is_told(query: str, says: str) -> None:
    """As GraphQL tells it: an answer with errors and no data."""
    told = _ask(query, lambda given: RUN)
    assert says in told["errors"][0]["message"] and "data" not in told


def test_a_selection_is_read() -> None:
    """Arguments, directives and commas are passed over."""
    assert parse('{ a(x: {b: 1}, y: ")") { b, c @skip(if: true) { d } } }') == {"a": {"b": {}, "c": {"d": {}}}}
    with pytest.raises(MlflowError):
        parse("{ a(x: 1 }")
