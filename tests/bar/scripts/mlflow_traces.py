"""Traces with the real client: recorded, found, judged, tagged, linked and deleted."""

# mypy: ignore-errors
import math
import time

import mlflow
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Feedback, SpanEvent, SpanType
from mlflow.exceptions import MlflowException

home = mlflow.set_experiment("traced").experiment_id
client = MlflowClient()
ODD = {"big": 2**63 - 1, "small": -(2**63), "inf": -math.inf, "list": [1, 2.5, "x", None], "é": "ü\0"}


@mlflow.trace(span_type=SpanType.RETRIEVER, attributes={**ODD, "nan": math.nan})
def fetch(question):
    """Make the inner span."""
    return ["a", "b"]


@mlflow.trace
def answer(question):
    """Make a trace of three spans."""
    mlflow.update_current_trace(tags={"team": "red"}, metadata={"mlflow.trace.session": "s"}, client_request_id="c")
    with mlflow.start_span("llm", span_type=SpanType.LLM) as span:
        span.set_inputs({"messages": [{"role": "user", "content": question}]})
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
        span.add_event(SpanEvent("thought", attributes={"k": 1}))
        span.set_outputs("hello")
    return fetch(question)


@mlflow.trace
def bad():
    """Make a trace that fails."""
    raise ValueError("boom")


def last():
    """Return the id of the trace before."""
    return mlflow.get_last_active_trace_id()


def found(**options):
    """Return the ids of the traces that are found."""
    traces = mlflow.search_traces(return_type="list", locations=[home], **options)
    return [trace.info.trace_id for trace in traces]


answer("what?")
ok = last()
try:
    bad()
except ValueError:
    failed = last()
with mlflow.start_run() as run:
    answer("in a run")
    within = last()
mlflow.flush_trace_async_logging()

trace = mlflow.get_trace(ok)
assert (str(trace.info.state), trace.info.client_request_id) == ("OK", "c")
assert trace.info.tags["team"] == "red" and trace.info.tags["mlflow.traceName"] == "answer"
assert trace.info.token_usage == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
root, llm, inner = trace.data.spans
assert (root.name, llm.name, inner.name) == ("answer", "llm", "fetch")
assert root.parent_id is None and llm.parent_id == inner.parent_id == root.span_id
assert {name: inner.attributes[name] for name in ODD} == ODD and math.isnan(inner.attributes["nan"])
assert inner.outputs == ["a", "b"] and llm.outputs == "hello" and llm.events[0].attributes == {"k": 1}

assert found() == [within, failed, ok]
assert found(max_results=2) == [within, failed]
assert found(filter_string="trace.status = 'ERROR'") == [failed]
assert found(filter_string="tags.team = 'red'", order_by=["timestamp ASC"]) == [ok, within]
assert found(filter_string="span.type = 'LLM' AND span.name = 'llm'") == [within, ok]
assert found(run_id=run.info.run_id) == [within]
whole = mlflow.search_traces(return_type="list", locations=[home])
assert [len(one.data.spans) for one in whole] == [3, 1, 3]

source = AssessmentSource("HUMAN", "someone")
said = mlflow.log_feedback(trace_id=ok, name="good", value=True, rationale="r", source=source, metadata={"a": "b"})
wanted = mlflow.log_expectation(trace_id=ok, name="want", value={"x": [1, 2]})
read = mlflow.get_assessment(ok, said.assessment_id)
assert (read.value, read.rationale, read.metadata, read.source.source_id) == (True, "r", {"a": "b"}, "someone")
assert mlflow.get_assessment(ok, wanted.assessment_id).value == {"x": [1, 2]}
changed = mlflow.update_assessment(ok, said.assessment_id, Feedback(name="good", value=0.25, rationale="new"))
assert (changed.value, changed.rationale, changed.metadata) == (0.25, "new", {"a": "b"})
assert found(filter_string="feedback.good = '0.25'") == [ok]
over = mlflow.override_feedback(trace_id=ok, assessment_id=said.assessment_id, value=False)
assert mlflow.get_assessment(ok, said.assessment_id).valid is False
mlflow.delete_assessment(ok, over.assessment_id)
assert mlflow.get_assessment(ok, said.assessment_id).valid is True
assert sorted(one.name for one in mlflow.get_trace(ok).info.assessments) == ["good", "want"]

mlflow.set_trace_tag(ok, "k", "v")
assert mlflow.get_trace(ok).info.tags["k"] == "v"
mlflow.delete_trace_tag(ok, "k")
assert "k" not in mlflow.get_trace(ok).info.tags
client.link_traces_to_run([ok], run.info.run_id)
assert found(run_id=run.info.run_id) == [within, ok]

assert client.delete_traces(experiment_id=home, trace_ids=[failed]) == 1
try:
    client.get_trace(failed)
    raise AssertionError("it is still there")
except MlflowException as error:
    assert error.error_code == "RESOURCE_DOES_NOT_EXIST", error
assert client.delete_traces(experiment_id=home, max_timestamp_millis=int(time.time() * 1000), max_traces=10) == 2
assert found() == []
print("done")
