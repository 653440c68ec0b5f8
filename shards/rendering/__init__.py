"""The heads of the source `synthetic`."""
