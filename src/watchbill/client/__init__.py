"""Typed async clients of our own API: `Client` for people's programs, `AgentClient` for agents."""

from watchbill.client.agent import AgentClient
from watchbill.client.reader import Client
from watchbill.client.selection import Selection, WorkloadDocument

__all__ = ["AgentClient", "Client", "Selection", "WorkloadDocument"]
