"""S3 operations, translated to words of the object store."""
