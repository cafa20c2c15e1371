"""`get`, `count`, `idle`, `export` and Run:ai's words, against a server that holds what a test says."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import yaml
from aiohttp import web

from tests.fixtures.command_line import FakeServer, aged, cluster, document
from watchbill.workload import Phase, RequestedPods
from watchbill.workload_fields import EXPORT_COLUMNS

HOSTILE = "\x1b[2Jevil\nforged-row   Job   Running \u202eoops\u200b"


def three() -> list[dict[str, object]]:
    return [
        document(aged(1)),
        document(
            aged(
                2,
                name="名前-eval",
                type="Job",
                phase=Phase.PENDING,
                running_pods=0,
                gpus=0,
                submitted_by=None,
                priority=None,
                current_node_pools=(),
            )
        ),
        document(aged(3, gpus=0.5, idle_allocated_gpus=0.25, requested_pods=RequestedPods())),
    ]


async def test_the_table() -> None:
    async with FakeServer(live=three()).running() as watchbill:
        outcome = await watchbill("get")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.splitlines() == [
        "NAME          TYPE         PHASE     PROJECT   OWNER             PODS   GPUS(R/A)   IDLE   AGE",
        "llama-sft-1   PyTorchJob   Running   vision    ada@example.com   1/1    2/2         ?      2h 11m",
        "名前-eval     Job          Pending   vision    -                 0/1    -           -      2h 11m",
        "llama-sft-3   PyTorchJob   Running   vision    ada@example.com   1/?    0.5/0.5     0.25   2h 11m",
    ]


async def test_the_wide_table_adds_where_and_which() -> None:
    async with FakeServer(live=three()[:1]).running() as watchbill:
        outcome = await watchbill("get", "-o", "wide", "--no-headers")
    assert outcome.out.split("2h 11m")[1].split() == [
        "team-vision",
        "west",
        "a100",
        "50",
        str(UUID(int=1)),
    ]


async def test_a_cut_table_says_so_and_a_whole_one_does_not() -> None:
    fake = FakeServer(live=[document(aged(n)) for n in range(1, 61)], counts=[12_431])
    async with fake.running() as watchbill:
        outcome = await watchbill("get")
        assert len(outcome.out.splitlines()) == 51
        assert outcome.err == "50 of 12,431 shown (--limit N for more)\n"
        outcome = await watchbill("get", "--limit", "60")
        assert len(outcome.out.splitlines()) == 61
        assert outcome.err == ""


@pytest.mark.parametrize(
    ("deleted", "message"),
    [
        ((), "No live workloads visible to you.\n"),
        (("--deleted",), "No deleted workloads visible to you.\n"),
        (("-s", "x"), "No live workloads match.\n"),
    ],
)
async def test_an_empty_list_is_no_error_and_says_what_it_means(
    deleted: tuple[str, ...], message: str
) -> None:
    async with FakeServer().running() as watchbill:
        outcome = await watchbill("get", *deleted)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", message)


@pytest.mark.parametrize("command", ["get", "idle", "why"])
async def test_an_empty_list_names_the_clusters_that_are_not_observed(command: str) -> None:
    server = FakeServer(clusters=[cluster(state="disconnected", reason="Unauthorized.")])
    async with server.running() as watchbill:
        outcome = await watchbill(command)
    assert "note: cluster west is disconnected: not observed for 2h 11m" in outcome.err
    async with FakeServer(clusters=[cluster(state="waiting")]).running() as watchbill:
        outcome = await watchbill(command)
    assert "note: the agent of cluster west has never connected: start it" in outcome.err
    async with FakeServer(clusters=[]).running() as watchbill:
        outcome = await watchbill(command)
    assert "`watchbill admin cluster create NAME`" in outcome.err


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (
            ("-f", "phase==pending"),
            "None has the phase 'pending'. Did you mean Pending?\n",
        ),
        (
            ("--project", "visoin"),
            "None has the projectName 'visoin'. Did you mean vision?\n",
        ),
        (("-f", "phase==Running"), ""),
        (("-f", "type==\x1b[2JNo"), ""),
    ],
)
async def test_what_may_be_meant_by_a_value_that_none_has(
    flags: tuple[str, ...], hint: str
) -> None:
    class Empty(FakeServer):
        async def _list(self, request: web.Request) -> web.Response:
            return web.json_response({"workloads": []})

    live = [entry | {"projectName": "vision"} for entry in three()]
    async with Empty(live=live).running() as watchbill:
        outcome = await watchbill("get", *flags)
    assert outcome.err == f"No live workloads match.\n{hint}"


async def test_flags_reach_the_api_in_its_words() -> None:
    async with FakeServer().running() as watchbill:
        await watchbill(
            *("get", "-f", "phase==Pending", "--filter", "allocatedGPU>=2", "--search", "ä b"),
            *("--sort-by", "name", "--desc", "--deleted", "-p", "a,phase==Running"),
            *("--cluster", "west"),
        )
    query = watchbill.asked("/api/v1/workloads")[0].query
    assert query.getall("filterBy") == [
        "phase==Pending",
        "allocatedGPU>=2",
        '["projectName==a,phase==Running"]',
        f'["clusterId=={UUID(int=0xC0)}"]',
        "workloadClass!=General",
    ]
    assert (query["search"], query["deleted"]) == ("ä b", "true")
    assert (query["sortBy"], query["sortOrder"]) == ("name", "desc")


@pytest.mark.parametrize(
    ("arguments", "filters"),
    [
        (("get",), ["workloadClass!=General"]),
        (("count",), ["workloadClass!=General"]),
        (("get", "-o", "json"), ["workloadClass!=General"]),
        (("get", "--all-workloads"), []),
        (("count", "-a"), []),
        (("workload", "list", "-a"), []),
        (("get", "-f", "workloadClass==General"), ["workloadClass==General"]),
        (("export",), []),
    ],
)
async def test_lists_show_ai_work_unless_all_is_asked_for(
    arguments: tuple[str, ...], filters: list[str]
) -> None:
    async with FakeServer(live=three()).running() as watchbill:
        await watchbill(*arguments)
    [asked, *_] = [
        request for request in watchbill.requests if request.path.startswith("/api/v1/workloads")
    ]
    assert asked.query.getall("filterBy", []) == filters


async def test_images_nodes_models_and_labels_are_filters() -> None:
    """A part of an image or a model is enough; a key without a value means any value."""
    async with FakeServer(live=three()).running() as watchbill:
        await watchbill(
            *("get", "-a", "--image", "vllm", "--node", "gpu-1", "--gpu-type", "H100"),
            *("-l", "team=vision", "--label", "tier"),
        )
    assert watchbill.asked("/api/v1/workloads")[0].query.getall("filterBy") == [
        '["image=@vllm"]',
        '["node==gpu-1"]',
        '["gpuModel=@H100"]',
        '["label==team=vision"]',
        '["label=^tier="]',
    ]


async def test_what_is_left_out_of_a_table_is_reported() -> None:
    async with FakeServer(live=three(), general=1_204).running() as watchbill:
        shown = await watchbill("get")
        data = await watchbill("get", "-o", "name")
    assert shown.err == "1,204 not shown, since they are not AI work (--all-workloads shows all)\n"
    assert data.err == ""


async def test_json_holds_all_of_one_snapshot_in_the_apis_shape() -> None:
    live = [document(aged(n)) for n in range(1, 1203)]
    async with FakeServer(live=live).running() as watchbill:
        outcome = await watchbill("get", "-o", "json")
    assert json.loads(outcome.out) == {"workloads": live}
    assert outcome.err == ""
    assert not watchbill.asked("/api/v1/workloads"), "pages are of different moments"
    [asked] = watchbill.asked("/api/v1/workloads/export")
    assert asked.query["format"] == "ndjson"


async def test_a_limit_on_data_is_noted_and_seen() -> None:
    async with FakeServer(live=three()).running() as watchbill:
        outcome = await watchbill("get", "-o", "json", "--limit", "2")
        assert json.loads(outcome.out)["next"] == 2
        assert outcome.err == "2 of 3 printed\n"
        outcome = await watchbill("get", "-o", "yaml", "--limit", "2")
        assert yaml.safe_load(outcome.out)["next"] == 2


async def test_yaml_is_the_same_document_with_nothing_hidden() -> None:
    live = [document(aged(1, name="ü"))], [document(aged(1, name=HOSTILE))]
    for made in live:
        async with FakeServer(live=made).running() as watchbill:
            outcome = await watchbill("get", "-o", "yaml")
        assert yaml.safe_load(outcome.out) == {"workloads": made}
        assert "\u202e" not in outcome.out
        assert "\x1b" not in outcome.out


@pytest.mark.parametrize(
    ("output", "empty"), [("json", {"workloads": []}), ("yaml", {"workloads": []})]
)
async def test_empty_data_is_still_a_document(output: str, empty: object) -> None:
    async with FakeServer().running() as watchbill:
        outcome = await watchbill("get", "-o", output)
    assert yaml.safe_load(outcome.out) == empty


async def test_csv_runs_no_formula_and_keeps_numbers() -> None:
    made = [
        document(aged(1, name='=HYPERLINK("x")')),
        document(aged(2, name="a,b\n", current_node_pools=("a", "b"))),
    ]
    async with FakeServer(live=made).running() as watchbill:
        outcome = await watchbill("get", "-o", "csv")
    assert outcome.out.endswith("\r\n")
    rows = list(csv.DictReader(io.StringIO(outcome.out, newline="")))
    assert [row["name"] for row in rows] == ['\'=HYPERLINK("x")', "a,b\n"]
    assert rows[0]["requestedGpus"] == "2.0"
    assert rows[1]["currentNodePools"] == "a, b"
    assert rows[1]["runningPods"] == "1"


async def test_csv_has_the_columns_of_an_export() -> None:
    async with FakeServer(live=three()).running() as watchbill:
        outcome = await watchbill("get", "-o", "csv")
    header, *rows = csv.reader(io.StringIO(outcome.out, newline=""))
    assert header == list(EXPORT_COLUMNS)
    second = dict(zip(header, rows[1], strict=True))
    assert (second["submittedBy"], second["priority"]) == ("", "")  # null is empty, as there


async def test_a_table_fits_the_terminal_and_a_wide_one_is_whole() -> None:
    live = [document(aged(1, name="n" * 60, submitted_by="a" * 50 + "@example.com"))]
    async with FakeServer(live=live).running() as watchbill:
        cut = await watchbill("get", "--no-color", is_terminal=True, environ={"COLUMNS": "80"})
        wide = await watchbill(
            "get", "--no-color", "-o", "wide", is_terminal=True, environ={"COLUMNS": "80"}
        )
        piped = await watchbill("get", environ={"COLUMNS": "80"})
    assert max(map(len, cut.out.splitlines())) <= 80
    assert "…" in cut.out
    assert "Running" in cut.out, "what is short stays whole"
    for whole in (wide.out, piped.out):
        assert "n" * 60 in whole
        assert "…" not in whole


async def test_an_export_of_a_time_has_the_deleted_too_under_one_header() -> None:
    server = FakeServer(export=b"name\r\na\r\n")
    async with server.running() as watchbill:
        outcome = await watchbill("export", "--with-deleted", "--since", "7d")
        refused = await watchbill("export", "--since", "soon")
    assert outcome.out == "name\r\na\r\na\r\n"
    assert refused.code == 2


async def test_csv_of_nothing_has_its_header() -> None:
    async with FakeServer().running() as watchbill:
        outcome = await watchbill("get", "-o", "csv", "--columns", "name,gpu")
    assert outcome.out == "name,requestedGpus,allocatedGpus\r\n"


async def test_names_and_ids_for_scripts() -> None:
    async with FakeServer(live=three()).running() as watchbill:
        names = await watchbill("get", "-o", "name")
        ids = await watchbill("get", "-o", "id")
    assert names.out == "llama-sft-1\n名前-eval\nllama-sft-3\n"
    assert ids.out.split() == [str(UUID(int=n)) for n in (1, 2, 3)]


async def test_columns_are_chosen_and_unknown_ones_are_named() -> None:
    async with FakeServer(live=three()[:1]).running() as watchbill:
        outcome = await watchbill("get", "--columns", "phase, NAME,cluster")
        assert outcome.out.splitlines()[1].split() == ["Running", "llama-sft-1", "west"]
        outcome = await watchbill("get", "--columns", "nome")
    assert outcome.code == 2
    assert outcome.err.startswith(
        "error: There is no column 'nome'.\nhint: columns: name, type, phase"
    )


@pytest.mark.parametrize("output", ["table", "wide"])
async def test_a_hostile_name_forges_no_row_and_moves_no_cursor(output: str) -> None:
    live = [document(aged(1, name=HOSTILE, project_name=HOSTILE, submitted_by=HOSTILE))]
    async with FakeServer(live=live).running() as watchbill:
        outcome = await watchbill("get", "-o", output, is_terminal=True, environ={"COLUMNS": "400"})
    assert len(outcome.out.splitlines()) == 2
    assert "\\x1b[2Jevil\\nforged-row ␣␣Job ␣␣Running \\u202eoops\\u200b" in outcome.out
    uncoloured = outcome.out
    for code in ("\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[0m"):
        uncoloured = uncoloured.replace(code, "")
    assert "\x1b" not in uncoloured


async def test_data_on_a_terminal_moves_no_cursor_either() -> None:
    body = "id,name\r\n1,\x1b[2Jé\u202e\r\n".encode()
    async with FakeServer(export=body).running() as watchbill:
        shown = await watchbill("export", is_terminal=True)
        piped = await watchbill("export")
    assert shown.out == "id,name\r\n1,\\x1b[2Jé\\u202e\r\n"
    assert piped.out.encode() == body


async def test_phases_have_colour_on_a_terminal_only_and_only_if_wanted() -> None:
    async with FakeServer(live=three()).running() as watchbill:
        assert "\x1b[33mPending\x1b[0m" in (await watchbill("get", is_terminal=True)).out
        assert "\x1b" not in (await watchbill("get")).out
        assert "\x1b" not in (await watchbill("get", "--no-color", is_terminal=True)).out


async def test_a_silent_cluster_is_reported_beside_its_workloads() -> None:
    last_contact_at = (datetime.now(UTC) - timedelta(minutes=12, hours=3, seconds=5)).isoformat()
    silent = cluster(state="disconnected", lastContactAt=last_contact_at)
    other = cluster(id=str(UUID(int=9)), name="east", state="disconnected")
    async with FakeServer(live=three(), clusters=[silent, other]).running() as watchbill:
        outcome = await watchbill("get")
    assert outcome.code == 0
    assert outcome.err == (
        "note: cluster west is disconnected: not observed for 3h 12m, "
        "its workloads are shown as last reported\n"
    )


async def test_get_one_by_name_and_by_id() -> None:
    async with FakeServer(live=three()).running() as watchbill:
        by_name = await watchbill("get", "名前-eval", "-o", "json")
        by_id = await watchbill("get", str(UUID(int=2)), "-o", "json")
        table = await watchbill("get", "名前-eval")
    assert json.loads(by_name.out) == json.loads(by_id.out) == watchbill.live[1]
    assert len(table.out.splitlines()) == 2


async def test_deleted_ones_say_when() -> None:
    gone = datetime.now(UTC) - timedelta(hours=3, seconds=5)
    async with FakeServer(deleted=[document(aged(1), deleted_at=gone)]).running() as watchbill:
        outcome = await watchbill("get", "--deleted")
    assert outcome.out.splitlines()[0].endswith("DELETED")
    assert outcome.out.splitlines()[1].endswith("3h")


async def test_count() -> None:
    async with FakeServer(live=three()).running() as watchbill:
        outcome = await watchbill("count")
    assert (outcome.code, outcome.out, outcome.err) == (0, "3\n", "")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([0, 0], "No workload has GPUs."),
        ([73, 0], "GPU use is not measured for the 73 workloads with GPUs"),
        (
            [73, 40],
            "40 of 73 workloads with GPUs are measured; the other 33 are not.",
        ),
        ([90, 89], "89 of 90 workloads with GPUs are measured; the other is not."),
        ([90, 1], "1 of 90 workloads with GPUs is measured; the other 89 are not."),
        ([40, 40], "All 40 workloads with GPUs are measured."),
    ],
)
async def test_idle_is_honest_about_what_is_measured(counts: list[int], message: str) -> None:
    fake = FakeServer()
    async with fake.running() as watchbill:
        fake.counts = sorted(counts, reverse=True)
        outcome = await watchbill("idle")
    assert outcome.code == 0
    assert outcome.out == ""
    assert message in outcome.err
    assert ("No idle GPUs in workloads that are measured." in outcome.err) == bool(min(counts))


async def test_run_ais_words() -> None:
    async with FakeServer(live=three()).running() as watchbill:
        listed = await watchbill(
            *("workload", "list", "-p", "vision", "--status", "Running", "--framework", "MPI"),
            *("--type", "Job", "--no-headers"),
        )
        as_json = await watchbill("workload", "list", "-A", "--json")
        as_yaml = await watchbill("workload", "list", "--yaml", "--max-items", "1")
        described = await watchbill("workload", "describe", "llama-sft-1", "-o", "json")
        torn = await watchbill("workload", "list", "--json", "--yaml")
        raw = await watchbill("workload", "list", "--raw", "--page-size", "2")
        rest = await watchbill("workload", "list", "--page-size", "1", "--next-token", "1")
        single = await watchbill("workload", "list", "--page-size", "1", "--no-pagination")
    assert len(listed.out.splitlines()) == 3
    assert watchbill.asked("/api/v1/workloads")[0].query.getall("filterBy") == [
        '["phase==Running"]',
        '["distributedFramework==MPI"]',
        '["type==Job"]',
        '["projectName==vision"]',
        "workloadClass!=General",
    ]
    assert len(json.loads(as_json.out)["workloads"]) == 3
    assert len(yaml.safe_load(as_yaml.out)["workloads"]) == 1
    assert json.loads(described.out) == watchbill.live[0]
    assert (torn.code, torn.err) == (
        2,
        "error: --json, --yaml and --raw contradict each other.\n",
    )
    assert json.loads(raw.out) == {"workloads": watchbill.live[:2], "next": 2}
    assert len(rest.out.splitlines()) == 3
    assert len(single.out.splitlines()) == 2
    assert single.err == "1 of 3 shown (--limit N for more)\n"
