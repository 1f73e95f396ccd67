"""Quorum operations on registers: read, commit, confirm, and the merged scan."""
