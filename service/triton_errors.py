"""Triton's errors as this service's own: by gRPC status and text, and none of the text is passed on."""

from service.errors import (
    ContractViolation,
    DeadlineExceeded,
    ModelFailed,
    ModelUnavailable,
    NoSavedState,
    Overloaded,
)


class DeadStub(ModelUnavailable):
    """503: the model's own process died while its server lives on; only unloading and loading heals it."""


class VersionGone(ModelUnavailable):
    """503: the version asked for is not loaded; another one may be."""


class SequenceNotStarted(ContractViolation):
    """The server knows no sequence of this number, or no longer: it wants to hear that one begins."""


def translate(status: str, text: str, model: str) -> Exception:
    """This service's error for a gRPC status (`StatusCode.X`) and Triton's text (measured on 2.51).

    The text decides where several causes share a status; it is never passed on, because it carries file paths,
    tracebacks and names of shared-memory regions.
    """
    code = status.removeprefix("StatusCode.")
    if code == "UNAVAILABLE":
        if "Exceeds maximum queue size" in text:
            return Overloaded("The inference queue is full.")
        if "Request timeout expired" in text:
            return DeadlineExceeded("The request waited too long in the inference queue.")
        if "protocol is restricted" in text:
            return ContractViolation("The inference server refuses this admin call.")
        if "unknown model" in text:  # one version of it; what it says of a model without any is NOT_FOUND
            return VersionGone(f"This version of the model {model} is not loaded.")
        return ModelUnavailable("The inference server is not available.")
    if code == "DEADLINE_EXCEEDED":
        return DeadlineExceeded("The model did not answer in time.")
    if code == "NOT_FOUND":
        # Only models of the contract are asked for, so this one is starting, stopping or reloading.
        return VersionGone(f"The model {model} is not loaded.")
    if code == "INTERNAL":
        if "is not healthy" in text or "health mutex" in text:
            return DeadStub(f"The model {model} is being restarted.")
        if "shared memory" in text:
            return ModelUnavailable("The inference server is out of memory.")
        return ModelFailed("The model failed on this input.")
    if code == "INVALID_ARGUMENT" and "must specify the START flag" in text:
        return SequenceNotStarted("The sequence is not known.")
    if code == "INVALID_ARGUMENT" and text.startswith("state of a sequence: "):  # training/stereo_model.py
        return NoSavedState(
            "There is no saved state of this sequence and way of adapting, or none can be kept here.",
            field="checkpoint",
        )
    if code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "PERMISSION_DENIED"):
        return ContractViolation(f"The inference server refuses the request to {model}.")
    if code == "CANCELLED":
        return ModelUnavailable("The inference server gave the request up.")
    return ModelFailed("The model failed.")
