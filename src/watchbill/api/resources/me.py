"""Who the caller is, as the server sees it."""

from typing import Any

from watchbill import __version__
from watchbill.access.caller import Caller
from watchbill.access.roles import Permission
from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply


async def get_me(call: Call) -> Answer:
    assert call.caller is not None, "the route lets nobody in without a login"
    return json_reply(me(call.caller))


def me(caller: Caller) -> dict[str, Any]:
    scope = caller.scope
    return {
        "subject": caller.subject,
        "name": caller.name,
        "kind": caller.kind,
        "tenantId": caller.tenant_id,
        "isAdministrator": caller.is_administrator,
        "permissions": sorted(one for one in Permission if caller.may(one)),
        "scope": {
            "tenant": scope.is_whole_tenant,
            "clusterIds": sorted(str(one) for one in scope.cluster_ids),
            "departmentIds": [str(one) for one in sorted(scope.department_ids)],
            "projectIds": [str(one) for one in sorted(scope.project_ids)],
        },
        "version": __version__,
    }


HANDLERS = (get_me,)
