"""Health of the Triton container: one real inference per network, over loopback HTTP, with the standard library alone.

Triton's own readiness stays 200 after a model's process died; an inference does not. Exit status 0: all answered.
"""

import http.client
import json
import sys

from service.contract import CANARY_SIZE, MODELS

_PORT = 8000
_TIMEOUT_S = 4.0


def infer(model: str) -> str | None:
    """Run one black picture through `model`; None when it answered, else why not."""
    spec = MODELS[model]
    height, width = CANARY_SIZE
    pixels = bytes(height * width * 3)
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": spec.inputs[0].name,
                    "datatype": "UINT8",
                    "shape": [1, height, width, 3],
                    "parameters": {"binary_data_size": len(pixels)},
                }
            ],
            "outputs": [{"name": tensor.name, "parameters": {"binary_data": True}} for tensor in spec.outputs],
        }
    ).encode()
    # http.client and not urllib, which would send the probe through a proxy named in the environment.
    connection = http.client.HTTPConnection("127.0.0.1", _PORT, timeout=_TIMEOUT_S)
    try:
        connection.request(
            "POST", f"/v2/models/{model}/infer", header + pixels, {"Inference-Header-Content-Length": str(len(header))}
        )
        answer = connection.getresponse()
        body = answer.read()
    except OSError as error:
        return str(error)
    finally:
        connection.close()
    return None if answer.status == 200 else f"{answer.status} {body[:200].decode(errors='replace')}"


def main() -> int:
    """Probe every network; ensembles only chain them."""
    failures = {name: infer(name) for name, spec in MODELS.items() if spec.kind == "network"}
    print("; ".join(f"{name}: {failure or 'answers'}" for name, failure in failures.items()))
    return int(any(failures.values()))


if __name__ == "__main__":
    sys.exit(main())
