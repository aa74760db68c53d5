"""The Hugging Face Hub: what a repository is called there, what is fetched of it, and what is in the cache."""
