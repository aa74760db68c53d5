"""The directory that is absent or complete."""
