"""The per-key register: a CASPaxos acceptor and proposer as pure state machines."""
