"""What a run can be told, key by key, with its bounds: read in no time, for it needs no torch."""
