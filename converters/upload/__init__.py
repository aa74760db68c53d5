"""A finished Hugging Face directory, held against its vlconv.json and uploaded to the Hub."""
