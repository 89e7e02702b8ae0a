"""Errors of the training package.

- TrainingError: one line for the user, who can act on it; `__main__` prints it and exits with 1
  - data.sample.BrokenSampleError: one file cannot be read; a training set counts it and goes on
"""


class TrainingError(Exception):
    """Something the user can put right: the message names the file, key or step, and what to do."""
