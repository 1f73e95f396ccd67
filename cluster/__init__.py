"""The store: registers, drives, erasure coding, objects. It knows nothing of S3."""
