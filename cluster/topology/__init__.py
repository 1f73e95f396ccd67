"""Which drives form which sets, and what a layout tolerates."""
