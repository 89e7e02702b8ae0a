"""Depthlens gateway: depth maps, person mattes and refocused photos over HTTP."""

import os

__version__ = "0.1.0"

# gRPC reads this when it is first imported. The supervisor starts processes while gRPC's threads run; these replace
# themselves at once, so gRPC's fork handlers have nothing to save and would only say so in the log at every start.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
