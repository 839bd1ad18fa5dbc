"""A procedural web of invented people, places and things, with questions about it."""
