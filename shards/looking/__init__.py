"""Reading a finished data set to check, count and show it."""
