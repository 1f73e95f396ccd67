"""Who is there: opinions of every node about every other, for routing and healing. No safety argument rests on them."""
