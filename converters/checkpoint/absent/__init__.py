"""What a checkpoint does not hold: multi-token-prediction heads, and what goes along from elsewhere."""
