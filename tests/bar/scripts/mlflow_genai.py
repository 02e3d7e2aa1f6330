"""What an application of language models says with the real client: traces, judgements, prompts, evaluations."""

# mypy: ignore-errors
import asyncio

import mlflow
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Feedback, SpanType
from mlflow.genai import scorer

client = MlflowClient()
home = mlflow.set_experiment("spoken to").experiment_id

# Traces: of functions of every kind, and of spans by hand.


@mlflow.trace(name="find", span_type=SpanType.RETRIEVER, attributes={"k": 2})
def fetch(question):
    """Find two documents."""
    return [{"page_content": question, "metadata": {"doc_uri": "a"}}, {"page_content": "b"}]


@mlflow.trace
async def think(question):
    """Think, later."""
    await asyncio.sleep(0)
    return f"about {question}"


@mlflow.trace(output_reducer="".join)
def say(words):
    """Say it word by word."""
    yield from words


@mlflow.trace
def answer(question):
    """Answer with all of them."""
    mlflow.update_current_trace(tags={"team": "red"}, metadata={"mlflow.trace.user": "u", "mlflow.trace.session": "s"})
    found = fetch(question)
    return "".join(say([asyncio.run(think(question)), " ", found[1]["page_content"]]))


assert answer("what?") == "about what? b"
first = mlflow.get_last_active_trace_id()
with mlflow.start_span("by hand", span_type=SpanType.CHAIN) as root:
    root.set_inputs({"x": 1})
    with mlflow.start_span("inner") as inner:
        inner.set_attributes({"list": [1, 2]})
        inner.set_status("ERROR")
    root.set_outputs({"y": [None, "ü"]})
hand = root.trace_id
loose = mlflow.start_span_no_context("no context", inputs={"a": 1}, experiment_id=home)
mlflow.start_span_no_context("child of it", parent_span=loose).end()
loose.end(outputs="end")
mlflow.flush_trace_async_logging()
trace = mlflow.get_trace(first)
assert [one.name for one in trace.data.spans] == ["answer", "find", "say", "think"] or sorted(
    one.name for one in trace.data.spans
) == ["answer", "find", "say", "think"], trace.data.spans
assert trace.search_spans(name="say")[0].outputs == "about what? b"
assert trace.search_spans(span_type=SpanType.RETRIEVER)[0].attributes["k"] == 2
hand_read = mlflow.get_trace(hand)
assert hand_read.search_spans(name="by hand")[0].outputs == {"y": [None, "ü"]}
assert hand_read.search_spans(name="inner")[0].status.status_code == "ERROR"
assert len(mlflow.get_trace(loose.trace_id).data.spans) == 2

# Found, as objects and as a table; judged; told what was expected.
table = mlflow.search_traces(locations=[home])
assert set(table["trace_id"]) == {first, hand, loose.trace_id} and {"request", "response", "spans", "tags"} <= set(
    table
)
assert table.set_index("trace_id").loc[first, "response"] == "about what? b"
picked = mlflow.search_traces(filter_string="tags.team = 'red'", return_type="list")
assert [one.info.trace_id for one in picked] == [first] and len(picked[0].data.spans) == 4
assert mlflow.search_traces(filter_string="metadata.mlflow.trace.session = 's'").shape[0] == 1
human = AssessmentSource("HUMAN", "someone")
mlflow.log_feedback(trace_id=first, name="good", value=True, source=human, rationale="short")
mlflow.log_feedback(trace_id=first, name="parts", value={"a": 1, "b": [0.5]}, span_id=trace.data.spans[0].span_id)
mlflow.log_feedback(trace_id=first, name="broken", error=ValueError("cannot judge"))
mlflow.log_expectation(trace_id=first, name="want", value=["a", "b"], source=human)
judged = {one.name: one for one in mlflow.get_trace(first).info.assessments}
assert (
    judged["good"].value is True
    and judged["parts"].value == {"a": 1, "b": [0.5]}
    and judged["want"].value == ["a", "b"]
)
assert judged["broken"].error.error_message == "cannot judge", judged["broken"]
assert mlflow.search_traces(filter_string="feedback.good = 'true'", return_type="list")[0].info.trace_id == first
assert len(mlflow.search_traces(locations=[home]).set_index("trace_id").loc[first, "assessments"]) == 4

# Prompts.
made = mlflow.genai.register_prompt(
    "ask", "Say {{word}} to {{who}}", commit_message="one", tags={"by": "test"}, model_config={"temperature": 0.5}
)
mlflow.genai.register_prompt(
    "ask", [{"role": "system", "content": "Be {{how}}"}, {"role": "user", "content": "{{word}}"}]
)
mlflow.genai.set_prompt_alias("ask", "live", 1)
prompt = mlflow.genai.load_prompt("prompts:/ask@live")
assert (prompt.version, prompt.variables, prompt.commit_message) == (1, {"word", "who"}, "one")
assert prompt.format(word="hi", who="all") == "Say hi to all" and prompt.model_config["temperature"] == 0.5
assert mlflow.genai.load_prompt("ask", version=2).format(how="kind", word="x")[0] == {
    "role": "system",
    "content": "Be kind",
}
mlflow.genai.set_prompt_alias("ask", "live", 2)
assert mlflow.genai.load_prompt("prompts:/ask@live", cache_ttl_seconds=0).version == 2
mlflow.genai.set_prompt_tag("ask", "owner", "us")
mlflow.genai.set_prompt_version_tag("ask", 1, "state", "old")
assert mlflow.genai.load_prompt("ask", version=1, cache_ttl_seconds=0).tags["state"] == "old"
assert [one.name for one in mlflow.genai.search_prompts("name LIKE 'as%'")] == ["ask"]
assert mlflow.genai.search_prompts("tags.owner = 'us'")[0].tags["owner"] == "us"
mlflow.genai.register_prompt("other", "x")
assert {one.name for one in mlflow.genai.search_prompts()} == {"ask", "other"}
with mlflow.start_run() as run:
    mlflow.genai.load_prompt("ask", version=1)


# An evaluation of a function by plain Python, and of answers that are there already.
@scorer
def exact(outputs, expectations):
    """Say whether it is what was expected."""
    return outputs == expectations["answer"]


@scorer
def length(inputs, outputs):
    """Judge its length, in words of its own."""
    return Feedback(value=len(outputs), rationale=f"of {inputs['question']}")


@scorer
def spans(trace):
    """Look into the trace."""
    return [Feedback(name="spans", value=len(trace.data.spans)), Feedback(name="named", value="yes")]


@scorer
def broken(outputs):
    """Fail for one row."""
    if outputs == "b":
        raise ValueError("cannot")
    return True


@mlflow.trace
def predict(question):
    """Answer with its first letter."""
    return question[0]


data = [
    {"inputs": {"question": "a?"}, "expectations": {"answer": "a"}, "tags": {"part": "one"}},
    {"inputs": {"question": "b?"}, "expectations": {"answer": "x"}},
]
with mlflow.start_run(run_name="evaluated"):
    found = mlflow.genai.evaluate(data=data, predict_fn=predict, scorers=[exact, length, spans, broken])
assert found.metrics["exact/mean"] == 0.5 and found.metrics["length/mean"] == 1.0, found.metrics
rows = found.result_df
assert sorted(rows["exact/value"]) == [False, True] and len(rows) == 2, rows
read = mlflow.get_run(found.run_id)
assert read.data.metrics["exact/mean"] == 0.5, read.data.metrics
traces = mlflow.search_traces(run_id=found.run_id, return_type="list")
assert len(traces) == 2
said = {one.name: one for one in traces[0].info.assessments}
assert {"exact", "length", "spans", "named", "broken", "answer"} <= set(said), said
assert said["exact"].source.source_type == "CODE" and said["length"].rationale.startswith("of ")
assert {one.info.tags.get("part") for one in traces} == {"one", None}
static = mlflow.genai.evaluate(
    data=[{"inputs": {"question": "q"}, "outputs": "r", "expectations": {"answer": "r"}}], scorers=[exact]
)
assert static.metrics["exact/mean"] == 1.0
again = mlflow.genai.evaluate(data=mlflow.search_traces(run_id=found.run_id), scorers=[spans])
assert again.metrics["spans/mean"] == 1.0, again.metrics

# Models that are applications: traces and metrics are of the version that is active.
active = mlflow.set_active_model(name="app-v1")
answer("of a model")
mlflow.flush_trace_async_logging()
assert len(mlflow.search_traces(model_id=active.model_id, return_type="list")) == 1
print("done")
