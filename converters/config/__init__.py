"""config.json: found beside a checkpoint, made from what it states and shows, held against that, and written."""
