"""What a tensor is, and the language of equal boxes."""
