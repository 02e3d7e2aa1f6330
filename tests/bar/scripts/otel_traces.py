"""Spans with the SDK of OpenTelemetry, sent with each compression that its exporter has."""

# mypy: ignore-errors
import sys

from opentelemetry.exporter.otlp.proto.http.trace_exporter import Compression, OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode

for compression in (Compression.NoCompression, Compression.Gzip, Compression.Deflate):
    headers = {"x-mlflow-experiment-id": "0"}
    exporter = OTLPSpanExporter(endpoint=f"{sys.argv[1]}/v1/traces", headers=headers, compression=compression)
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("library", "1.0")
    with tracer.start_as_current_span("root") as root:
        root.set_attribute("number", 1 << 62)
        with tracer.start_as_current_span("inner") as inner:
            inner.set_attribute("gen_ai.usage.input_tokens", 5)
            inner.set_status(Status(StatusCode.ERROR, "bad"))
    assert provider.force_flush()
    print(f"tr-{root.get_span_context().trace_id:032x}")
