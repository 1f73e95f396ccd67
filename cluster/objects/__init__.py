"""Objects and buckets on top of registers and shards; all that S3 may see."""
