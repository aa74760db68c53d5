"""inspect: what a directory is, from its metadata alone, and what can be done with it."""
