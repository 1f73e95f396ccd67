"""Optional parts, each behind a thin extension; nothing imports them but the command line."""
