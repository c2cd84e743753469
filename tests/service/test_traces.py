"""A trace goes from the upload to the verdict, and names no photo, claim or link."""

import json
from collections import Counter

import pytest

from realdamage.service import app as application
from realdamage.service.app import start_traces

pytest.importorskip("opentelemetry.sdk", reason='pip install "realdamage[otel]"')
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def traced(serve, monkeypatch, tmp_path):
    """A service with traces, and what ends it and returns its spans."""
    exporter = InMemorySpanExporter()
    stops = []

    def start(url):
        assert url == "http://collector:4318/v1/traces"
        stops.append(start_traces(url, exporter))
        return lambda: None

    monkeypatch.setattr(application, "start_traces", start)
    client = serve(traces="http://collector:4318/v1/traces", store=tmp_path)

    def spans():
        while stops:
            stops.pop()()
        return list(exporter.get_finished_spans())

    yield client, spans
    spans()


def test_a_claim_is_one_trace_from_the_upload_to_the_store(traced, encode):
    client, ended = traced
    files = [
        ("photos", ("secret-name.jpg", encode(seed=1))),
        ("photos", ("other.jpg", encode(seed=2))),
        ("listings", ("shop.jpg", encode(seed=3))),
    ]
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    form = {"keep": "true", "claim_id": "claim-hidden"}
    assert client.post("/v1/claims", files=files, data=form, headers=headers).status_code == 200
    spans = ended()
    assert Counter(span.name for span in spans) == {
        "POST /v1/claims": 1,
        "receive": 1,
        "decode": 3,
        "score": 2,
        "compare": 1,
        "store": 1,
    }
    (root,) = (span for span in spans if span.name == "POST /v1/claims")
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}
    assert f"{root.parent.span_id:016x}" == CALLER
    (compare,) = (span for span in spans if span.name == "compare")
    (listing,) = (each for each in spans if each.parent.span_id == compare.context.span_id)
    assert listing.name == "decode"
    others = [each for each in spans if each not in (root, listing)]
    assert {span.parent.span_id for span in others} == {root.context.span_id}
    assert root.attributes["http.response.status_code"] == 200
    written = json.dumps([json.loads(span.to_json()) for span in spans])
    assert "secret-name" not in written
    assert "claim-hidden" not in written


def test_an_error_has_no_name_of_a_photo_and_a_link_no_token(traced):
    client, ended = traced
    files = [("photos", ("secret-name.jpg", b"\xff\xd8\xff broken"))]
    assert client.post("/v1/photos", files=files).status_code == 200
    client.get("/s/very-secret-token")
    spans = ended()
    (decode,) = (span for span in spans if span.name == "decode")
    assert decode.status.status_code is StatusCode.ERROR
    assert decode.status.description is None
    assert not decode.events
    (link,) = (span for span in spans if span.name == "GET /s/{token}")
    assert "very-secret-token" not in link.to_json()
