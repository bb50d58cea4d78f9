"""The executor on a Ray cluster, the only room that knows Ray: Tune places and restarts, the store remembers."""
