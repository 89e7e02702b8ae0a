"""`python -m training compare`: recipes trained in turn, judged on the same truth, and a page of results."""
