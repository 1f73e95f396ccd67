"""What drives owe each other and themselves: missed rows, corrupt rows, tombstones, orphaned shards. In bounded rounds."""
