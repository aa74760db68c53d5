"""An output of another tool, held against a model of the same kind from headers, index and config: verify --like."""
