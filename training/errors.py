"""Errors of the training package.

- TrainingError: one line for the user, who can act on it; `__main__` prints it and exits with 1
"""


class TrainingError(Exception):
    """Something the user can put right: the message names the file, key or step, and what to do."""
