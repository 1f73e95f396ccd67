"""The storectl command line."""
