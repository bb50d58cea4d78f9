"""Costs of an architecture, known before training: parameters, MACs, memory and latency."""
