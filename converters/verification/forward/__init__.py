"""verify --forward: models are run, and what they compute is compared."""
