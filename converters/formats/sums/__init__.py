"""Checksums: of items and of whole files; and tensors that several ranks hold, compared by them."""
