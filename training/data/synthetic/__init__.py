"""Rendered scenes with exact depth: seed -> scene -> picture, inverse depth and person coverage."""
