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
from service.schemas import DepthReport, MaskReport, PeopleReport, Problem
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


def test_every_refusal_has_an_example_of_its_status() -> None:
    """Of each route and status: the problem documents shown are such documents, with a code of the table."""
    document = APP.openapi()
    shown = 0
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if int(status) < 400:
                    continue
                (content,) = answer["content"].values()
                assert content["examples"], (path, status)
                for code, example in content["examples"].items():
                    problem = Problem.model_validate(example["value"])
                    assert (problem.status, problem.code) == (int(status), code), path
                    assert code in KNOWN_CODES
                    shown += 1
                assert ("Retry-After" in answer["headers"]) == (status in ("429", "503"))
    assert shown > 50


def test_json_answers_have_an_example() -> None:
    for path, report in (("/depth", DepthReport), ("/segmentation", MaskReport), ("/focus", PeopleReport)):
        content = APP.openapi()["paths"][path]["post"]["responses"]["200"]["content"]
        report.model_validate(content["application/json"]["example"])
