"""Reed-Solomon coding: how an object's bytes become shards and come back."""
