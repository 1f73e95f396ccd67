"""Calls between nodes: the seam to the network, frames, and calls over streams."""
