"""Web question answering: search, read, answer."""
