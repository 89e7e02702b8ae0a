"""`depthlens models ...` and `depthlens servers ...`: the operator's side of `/admin`, over HTTP."""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_TIMEOUT_S = 300.0
"""A change is answered when it is over; a large network takes a while to load."""


class OperatorSettings(BaseSettings):
    """Where the gateway is, and the key that its admin routes want."""

    model_config = SettingsConfigDict(env_prefix="DEPTHLENS_", extra="ignore", frozen=True)

    gateway_url: str = Field("http://127.0.0.1:8080", pattern="^https?://")
    admin_key: SecretStr = SecretStr("")


class OperatorError(Exception):
    """The gateway refused or could not be asked; one sentence."""


def run(settings: OperatorSettings, action: str, model: str | None, version: int | None) -> str:
    """Do it and say what is served now, one line a model.

    Args:
        settings: gateway and key.
        action: `list`, `load`, `unload` or `rollback`.
        model: its name; None for `list`.
        version: for `load`.

    Raises:
        OperatorError: it was refused or failed.
    """
    if action == "list":
        return "\n".join(_line(entry) for entry in _ask(settings, "GET", "/admin/models")["models"])
    path = f"/admin/models/{urllib.parse.quote(model or '', safe='')}/{action}"
    if action == "load":
        path += f"?version={version}"
    return _line(_ask(settings, "POST", path))


def run_servers(settings: OperatorSettings, action: str, address: str | None) -> str:
    """Do it and say what is so now, one line a server.

    Args:
        settings: gateway and key.
        action: `list`, `drain` or `resume`.
        address: `address:port` of a Triton, as `list` has it; None for `list`.

    Raises:
        OperatorError: it was refused or failed.
    """
    if action == "list":
        return "\n".join(_server_line(entry) for entry in _ask(settings, "GET", "/admin/servers"))
    path = f"/admin/servers/{urllib.parse.quote(address or '', safe='')}/{action}"
    return _server_line(_ask(settings, "POST", path))


def _server_line(entry: dict[str, Any]) -> str:
    return f"{entry['address']}  {entry['state']}  ({entry['inflight']} in work)"


def _line(entry: dict[str, Any]) -> str:
    loaded = " ".join("+".join(versions) or "-" for versions in entry["loaded"])
    previous = f", before: {', '.join(entry['previous'])}" if entry["previous"] else ""
    return f"{entry['name']}  version {entry['version'] or 'none'}  (on each server: {loaded}{previous})"


def _ask(settings: OperatorSettings, method: str, path: str) -> Any:
    request = urllib.request.Request(
        settings.gateway_url.rstrip("/") + path,
        method=method,
        headers={"Authorization": f"Bearer {settings.admin_key.get_secret_value()}"},
    )
    try:
        # The address is the operator's own setting.
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # nosec B310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise OperatorError(_problem(error)) from None
    except (OSError, ValueError) as error:
        raise OperatorError(f"no answer from {settings.gateway_url}: {getattr(error, 'reason', error)}") from None


def _problem(error: urllib.error.HTTPError) -> str:
    try:
        body = json.load(error)
        code, detail = body["code"], body["detail"]
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered {error.code}"
    if code == "unknown_route":
        return "this gateway has no admin routes: set DEPTHLENS_ADMIN_KEY_HASHES there"
    return f"{error.code} {code}: {detail}"
