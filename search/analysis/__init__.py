"""Records in, numbers out: front, snapshot, confirmation, main effects, statistics."""
