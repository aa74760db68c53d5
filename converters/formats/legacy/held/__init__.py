"""What the rank files of a legacy checkpoint are held against: one another, their folders, and what they state."""
