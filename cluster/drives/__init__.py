"""Drives: one interface, a local one on folders, one in memory for the simulator."""
