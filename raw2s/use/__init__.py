"""A student in use: a folder that says itself how it is asked, and what asks it."""
