"""The OpenAPI document is what the routes do: fuzzed with schemathesis, and compared with the committed copy."""

import json
from pathlib import Path

import hypothesis
import schemathesis
from fakes import FakeDepthClient, encoded, picture
from problem_codes import KNOWN_CODES
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

APP = create_app(Settings(canary_period_s=60), FakeDepthClient())
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)


@schemathesis.check
def errors_are_problems(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Every 4xx is a problem document with a code of the table."""
    if 400 <= response.status_code < 500:
        assert response.headers["content-type"] == ["application/problem+json"]
        assert response.json()["code"] in KNOWN_CODES, response.json()["code"]


CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    errors_are_problems,
)
PHOTO = encoded(picture(48, 32))


@SCHEMA.include(path_regex="^/(depth|segmentation|focus|analyze|batch|models|health/live)$").parametrize()
@hypothesis.settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
def test_contract(case: schemathesis.Case) -> None:
    """Random parameters and bodies, half of them with a real photo: no 5xx, nothing undocumented."""
    if case.headers:
        case.headers.pop("X-Request-Timeout", None)  # a deadline of 1e-300 s is met by a 504, rightly
    case.validate_response(case.call(), checks=CHECKS)
    if case.method.upper() == "POST":
        case.media_type = "image/png"
        case.body = PHOTO
        case.validate_response(case.call(headers={"Content-Type": "image/png"}), checks=CHECKS)


def test_document_is_the_committed_one(update_golden: bool) -> None:
    path = Path(__file__).parents[1] / "golden" / "openapi.json"
    with TestClient(create_app(Settings(canary_period_s=60), FakeDepthClient())) as client:  # APP ran in another loop
        document = client.get("/openapi.json").json()
    document["info"]["version"] = "any"
    if update_golden:
        path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    assert json.loads(path.read_text()) == document, "the API changed: look, then run pytest --update-golden"
