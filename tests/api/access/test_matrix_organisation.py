"""The matrix of projects and departments: who sees which, and whose sums."""

from tests.api.access.test_matrix import RANGE, ask, in_turns, reading, visible
from tests.fixtures.estate import Estate, EstateCaller


async def test_projects_and_departments_are_those_of_what_is_visible(made: Estate) -> None:
    """Who sees one project sees the name of its department, and no sum; one of others is not there."""
    every = (await made.served.get("/api/v1/org-unit/projects?limit=500")).json["projects"]
    above = {project["parentId"] for project in every} - {""}

    async def check(name: str, principal: EstateCaller) -> None:
        seen = visible(made, principal)
        answer = await ask(made, principal, "/api/v1/org-unit/projects?limit=500")
        projects = {entry["id"]: entry for entry in answer.json["projects"]}
        expected: dict[tuple[str, str], float] = {}
        for entry in seen:
            key = (entry.cluster, entry.project)
            expected[key] = expected.get(key, 0) + entry.number % 3
        clusters = {str(agent.identity.cluster_id): key[1] for key, agent in made.agents.items()}
        listed = {
            (clusters[entry["clusterId"]], entry["name"]): entry["status"]["quotaStatus"][
                "allocated"
            ]["gpu"]
            for entry in projects.values()
        }
        assert listed == expected, name
        path = "/api/v1/org-unit/departments?limit=500&verbosity=verbose"
        departments = (await ask(made, principal, path)).json["departments"]
        assert {(clusters[entry["clusterId"]], entry["name"]) for entry in departments} == {
            (entry.cluster, entry.department) for entry in seen if entry.department is not None
        }, name
        for entry in departments:
            children = {child["name"] for child in entry["children"]}
            place = (clusters[entry["clusterId"]], entry["name"])
            inside = [each for each in seen if (each.cluster, each.department) == place]
            assert children == {each.project for each in inside}, name
            if "status" in entry:
                gpus = entry["status"]["quotaStatus"]["allocated"]["gpu"]
                assert gpus == sum(each.number % 3 for each in inside), name
        for entry in every:
            alone = await ask(made, principal, f"/api/v1/org-unit/projects/{entry['id']}")
            assert alone.status == (200 if entry["id"] in projects else 404), name
            path = f"/api/v1/org-unit/projects/{entry['id']}/metrics?metricType=GPU_QUOTA&{RANGE}"
            assert (await ask(made, principal, path)).status == alone.status, name
        for number in above:
            alone = await ask(made, principal, f"/api/v1/org-unit/departments/{number}")
            by_id = {entry["id"]: entry for entry in departments}
            assert alone.status == (200 if number in by_id else 404), name
            path = f"/api/v1/org-unit/departments/{number}/metrics?metricType=GPU_QUOTA&{RANGE}"
            is_whole = "status" in by_id.get(number, {})
            assert (await ask(made, principal, path)).status == (200 if is_whole else 404), name

    await in_turns(reading(made), check)
