"""The real Triton inside this machine: its binary, its supervision and the stand-in OpenVINO backend."""
