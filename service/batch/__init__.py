"""Many photos through a service in one job: which ones, where results go, how it is shown and reported."""
