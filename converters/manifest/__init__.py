"""vlconv.json: what an output is, what it was made of, and the checksums of its files."""
