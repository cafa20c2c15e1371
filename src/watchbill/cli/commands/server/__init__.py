"""Commands of those who run a server: start it, keep its data, let people and agents in."""
