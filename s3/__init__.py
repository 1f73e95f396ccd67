"""The S3 front end: h11 server, authentication, operations."""
