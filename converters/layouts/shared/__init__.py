"""Tables that several layouts share."""
