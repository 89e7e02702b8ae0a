"""How fast the service is on this machine: the parts of `depthlens bench`, which `make bench` puts beside peers.

A part is a module with `run(effort) -> Part`. Nothing here needs torch.
"""
