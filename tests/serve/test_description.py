"""`/openapi.json` against the server that it describes."""

from __future__ import annotations

from typing import Any

import pytest
from test_bounds import ask

from slm.serve.description import described


def test_it_has_every_route_and_type(served: Any) -> None:
    """A route that nobody described is one that no client finds."""
    found = described(has_key=True)
    routes = {route.path.replace(":path", "") for route in served[1].app.routes if hasattr(route, "methods")}
    assert routes - {"/", "/favicon.ico", "/openapi.json"} == set(found["paths"])
    assert set(references(found)) <= set(found["components"]["schemas"])
    assert found["security"] == [{"key": []}]


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"].rpartition("/")[2]] if "$ref" in node else []
        return own + [one for value in node.values() for one in references(value)]
    return [one for value in node for one in references(value)] if isinstance(node, list) else []


@pytest.mark.nightly
def test_schemathesis_finds_nothing(start: Any) -> None:
    """No fault of the server's, no answer that is not described, nothing malformed that is taken."""
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import HealthCheck, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        negative_data_rejection,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = (
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
        negative_data_rejection,
    )
    with start(generation={"max_new_tokens": 2}, timeout=0.5) as (url, _):
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for operation in schema.get_all_operations():
            strategy = operation.ok().as_strategy()

            @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
            @__import__("hypothesis").given(case=strategy)
            def holds(case: Any) -> None:
                case.call_and_validate(base_url=url, checks=checks, timeout=20)

            holds()
        assert ask(url, "/health")[0] == 200
