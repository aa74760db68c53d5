"""The three conversions: planned, written, reported."""
