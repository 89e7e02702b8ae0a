"""Health of a Triton container: one real inference per network, over loopback HTTP, with the standard library alone.

    python3 triton_health.py [MODEL ...]

Triton's own readiness stays 200 after a model's process died; an inference does not. Exit status 0: all answered. The
script needs nothing of this project, so that it runs in any image with a Triton and a Python.
"""

import http.client
import json
import sys
from typing import Any

# Both as service/contract.py has them; a test compares.
NETWORKS = ("focus_on_depth",)
CANARY_SIZE = (64, 64)

_PORT = 8000
_TIMEOUT_S = 4.0


def infer(model: str) -> str | None:
    """Run one black picture through `model`; None when it answered, else why not."""
    # http.client and not urllib, which would send the probe through a proxy named in the environment.
    connection = http.client.HTTPConnection("127.0.0.1", _PORT, timeout=_TIMEOUT_S)
    try:
        description = json.loads(_ask(connection, "GET", f"/v2/models/{model}"))
        height, width = CANARY_SIZE
        pixels = bytes(height * width * 3)
        request: dict[str, Any] = {
            "inputs": [
                {
                    "name": description["inputs"][0]["name"],
                    "datatype": "UINT8",
                    "shape": [1, height, width, 3],
                    "parameters": {"binary_data_size": len(pixels)},
                }
            ],
            "outputs": [
                {"name": tensor["name"], "parameters": {"binary_data": True}} for tensor in description["outputs"]
            ],
        }
        header = json.dumps(request).encode()
        _ask(
            connection,
            "POST",
            f"/v2/models/{model}/infer",
            header + pixels,
            {"Inference-Header-Content-Length": str(len(header))},
        )
    except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return None


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, headers: Any = None
) -> bytes:
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise ValueError(f"{answer.status} {content[:200].decode(errors='replace')}")
    return content


def main(models: list[str]) -> int:
    """Probe every network; ensembles only chain them."""
    failures = {model: infer(model) for model in models or NETWORKS}
    print("; ".join(f"{model}: {failure or 'answers'}" for model, failure in failures.items()))
    return int(any(failures.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
