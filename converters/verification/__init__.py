"""verify: comparison, round trip, witnesses."""
