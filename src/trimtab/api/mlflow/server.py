"""What the server says of itself, its pages' GraphQL, and addresses that it does not have."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from trimtab.api.mlflow.graphql import answer
from trimtab.api.mlflow.registry import Registry
from trimtab.api.mlflow.searches import Searches
from trimtab.api.mlflow.tracking import Tracking
from trimtab.api.mlflow.wire import TEXT, Field, Spec
from trimtab.core.nouns import Data

ASKED: Spec = {"query": TEXT, "variables": Field("object"), "operationName": TEXT}
_OURS = re.compile(r"/(?:api|ajax-api)/[2-9]\.0/.*|/graphql")


def info(given: Data) -> Data:
    """Say what kind of store this is; pages and clients choose by it what they ask for."""
    del given
    return {"store_type": "SqlStore", "workspaces_enabled": False, "artifact_serving_enabled": True}


def graphql(tracking: Tracking, searches: Searches, registry: Registry) -> Callable[[Data], Data]:
    """Return what answers a GraphQL request, by the same operations as over REST."""

    def run(given: Data) -> Data:
        found: Data = tracking.get_run({"run_id": "", **given})["run"]
        ident = found["info"]["run_id"]
        home = tracking.get_experiment({"experiment_id": found["info"]["experiment_id"]})["experiment"]
        versions = registry.search_versions({"filter": f"run_id='{ident}'"})
        # What a query selects has to be there: an empty list and no null.
        more = {
            "inputs": {"dataset_inputs": [], "model_inputs": [], **found["inputs"]},
            "outputs": {"model_outputs": [], **found["outputs"]},
            "experiment": home,
            "model_versions": versions.get("model_versions", []),
        }
        return {"run": {**found, **more}}

    def history(given: Data) -> Data:
        return searches.sampled({"metric_key": "", **given})

    return partial(
        answer,
        resolvers={
            "mlflowGetRun": run,
            "mlflowGetExperiment": lambda given: tracking.get_experiment({"experiment_id": "", **given}),
            "mlflowSearchRuns": searches.runs,
            "mlflowGetMetricHistoryBulkInterval": history,
        },
    )


def no_gateway(given: Data) -> Data:
    """Say that there are no endpoints of a gateway; the pages ask for them and complain of anything else."""
    del given
    return {"endpoints": []}


def refused(method: str, path: str, status: int, message: str) -> tuple[int, Data] | None:
    """Return what the framework refuses in MLflow's form, if the address is one of those that look so.

    An address that is not there is an error that clients do not try again.
    """
    if _OURS.fullmatch(path) is None:
        return None
    if status in (404, 405):
        text = f"{method} {path[:300]} is not an operation of this server"
        return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": text}
    return status, {"error_code": "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR", "message": message}
