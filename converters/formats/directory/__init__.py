"""A checkpoint as a directory: which one it is, what it consists of, what it states of itself."""
