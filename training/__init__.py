"""Training of the served networks: data, networks, losses, the loop, evaluation and export. Needs torch."""
