"""HTTP routes: parse, call, answer; the arithmetic is in `service.imaging`."""
