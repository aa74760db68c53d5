"""torch's distributed checkpoint (DCP), in the forms that trainers write."""
