"""Which pod an address is: what a status says that somebody wrote who may write `pods/status`."""

from typing import Any

import pytest

from watchbill.agent.cache.targets import AddressClaims, ScrapeTarget

NODES = {"n1": {"10.0.0.1", "fd00::1"}, "n2": {"10.0.0.2"}, "n3": set()}


def target(uid: str, address: str, *, node: str = "n1", host: bool = False) -> ScrapeTarget:
    return ScrapeTarget(uid, "team", uid, node, address, 8000, is_in_host_network=host)


@pytest.mark.parametrize(
    ("address", "node", "host", "is_believed"),
    [
        ("10.1.0.7", "n1", False, True),
        ("10.0.0.1", "n1", True, True),
        ("FD00:0::1", "n1", True, True),
        ("10.0.0.2", "n1", True, False),
        ("10.1.0.7", "n1", True, False),
        ("10.0.0.9", "n3", True, True),
        ("10.0.0.1", "n1", False, False),
        ("fd00:0:0::1", "n2", False, False),
        ("10.96.0.1", "n1", False, False),
        ("::ffff:10.0.0.1", "n1", False, False),
        ("::10.96.0.1", "n1", False, False),
        ("64:ff9b::a00:2", "n1", False, False),
    ],
    ids=[
        "a pod's own",
        "its node's, in the host's network",
        "in another spelling",
        "another node's",
        "a pod's, in the host's network",
        "of a node whose addresses are not known",
        "a node's, without the host's network",
        "in another spelling, of another node",
        "the API server's",
        "a node's, as IPv6",
        "the API server's, as IPv6",
        "a node's, translated",
    ],
)
def test_an_address_is_a_pods_own(address: str, node: str, host: bool, is_believed: bool) -> None:
    claims, pod = AddressClaims(), target("a", address, node=node, host=host)
    claims.update({"a": address}, NODES)
    objection = claims.objection(pod, "10.96.0.1")
    assert (objection is None) is is_believed


def test_who_comes_to_have_another_pods_address_is_not_believed() -> None:
    """And takes nothing from the one that it belongs to, whichever had it first."""
    claims = AddressClaims()

    def believed(**addresses: str) -> set[str]:
        targets = [target(uid, address) for uid, address in addresses.items()]
        claims.update(addresses, NODES)
        return {each.uid for each in targets if claims.objection(each) is None}

    assert believed(victim="10.1.0.7", thief="10.1.0.8") == {"victim", "thief"}
    assert believed(victim="10.1.0.7", thief="10.1.0.7") == {"victim"}
    assert believed(thief="10.1.0.9") == {"thief"}, "nobody else has it"
    assert believed(thief="10.1.0.9", late="10.1.0.9") == {"late"}
    assert believed(late="10.1.0.9", other="10.1.0.9") == {"late", "other"}, "nobody can tell"


def test_looking_at_one_address_looks_at_no_other_nodes_and_pods() -> None:
    """500 servers and 5,000 nodes took half a minute of each round."""

    class Counted(dict[str, Any]):
        visits = 0

        def values(self) -> Any:
            self.visits += 1
            return super().values()

    claims, nodes = AddressClaims(), Counted(NODES)
    pods = Counted({f"p{number}": f"10.1.0.{number}" for number in range(200)})
    for _ in range(2):
        claims.update(pods, nodes)
        targets = [target(uid, address) for uid, address in pods.items()]
        assert not any(map(claims.objection, targets))
    assert (pods.visits, nodes.visits) == (0, 2), "only of who changed an address all are compared"
