"""Depthlens gateway: depth maps, person mattes and refocused photos over HTTP."""

__version__ = "0.1.0"
