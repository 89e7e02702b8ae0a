"""Samples, datasets and joint transforms."""
