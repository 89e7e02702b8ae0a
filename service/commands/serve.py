"""`depthlens serve`."""

import argparse
from typing import TYPE_CHECKING, Final

from service.commands import Options, fail

if TYPE_CHECKING:
    from service.settings import Settings

EXAMPLES: Final = """examples:
  depthlens serve                                       embedded Triton and gateway on 127.0.0.1:8080
  depthlens serve --port 9000
  DEPTHLENS_TRITON_URL=triton:8001 depthlens serve      gateway alone, Triton elsewhere

Every setting is an environment variable DEPTHLENS_*, listed in the README."""


def arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """The commonest settings as options."""
    parser.add_argument("--host", help="address to listen on (DEPTHLENS_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 = any free one (DEPTHLENS_PORT)")
    parser.add_argument("--triton-url", help="host:port of a running Triton's gRPC endpoint (DEPTHLENS_TRITON_URL)")
    parser.add_argument("--model-repository", help="repository of the embedded server (DEPTHLENS_MODEL_REPOSITORY)")


def run(options: Options) -> int:
    """Serve until a signal; 0 after a stop, 1 when the service cannot run, 2 for wrong settings."""
    # Here and not above: whoever wants the help, or completion, does not wait for the whole gateway.
    import uvloop
    from pydantic import ValidationError

    from service.embedded.binary import BinaryMissingError
    from service.embedded.supervisor import TritonStartError
    from service.logs import configure
    from service.server import bind, serve
    from service.settings import Settings

    given = {name: value for name, value in options.items() if value is not None and name != "command"}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        given_value = "" if "key" in str(first["loc"][0]) else f" (given: {first['input']!r})"  # it may be one
        return fail(f"setting {first['loc'][0]}: {first['msg']}{given_value}", 2)
    if settings.triton_url is None and (missing := _missing(settings)):
        return fail(missing, 2)
    configure(settings.log_level, settings.log_format)
    try:
        listener = bind(settings.host, settings.port)
    except OSError as error:
        return fail(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}")
    with listener:
        try:
            uvloop.run(serve(settings, listener))
        except KeyboardInterrupt:
            return 130
        except (BinaryMissingError, TritonStartError) as error:
            return fail(str(error).splitlines()[0])  # Triton's own lines are in the log already
    return 0


def _missing(settings: "Settings") -> str | None:
    """What is wrong with the models behind the routes: one that was named, or all of them, are not there."""
    from service.embedded.others import models_in

    there = models_in(settings.model_repository)
    names = {field: str(getattr(settings, field)) for field in ("depth_model", "segmentation_model", "focus_model")}
    wrong = [field for field in names if field in settings.model_fields_set and names[field] not in there]
    if not there or (not wrong and there & set(names.values())):  # an empty repository is the supervisor's to report
        return None
    field = (wrong or list(names))[0]
    listed = ", ".join(sorted(there))
    return f"setting {field}: {names[field]} is not in the repository {settings.model_repository}, which has {listed}"
