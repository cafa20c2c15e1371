"""Drills: what an operator fears, done to real servers, databases and proxies. `make drills`."""
