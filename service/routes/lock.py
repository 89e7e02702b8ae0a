"""What stands before every route that costs work: who asks, and may he.

Health and metrics have it not: probes and scrapers carry no key.
"""

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from service.clients import KEY_HEADER
from service.gateway import identified

# Documentation only: what they find in a request is read again by `Clients`.
_HEADER = APIKeyHeader(name=KEY_HEADER, auto_error=False, description="where keys are set")
_BEARER = HTTPBearer(auto_error=False, description="where keys are set")

LOCKED = [Depends(identified), Security(_HEADER), Security(_BEARER)]
