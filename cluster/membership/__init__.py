"""Who is there: heartbeats, suspicion by majority, and the layout carried along."""
